"""What overlapped with what: reads Chrome traces, measures them and draws them."""
