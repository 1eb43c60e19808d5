"""Running plans of nodes: thin shims over the planner, scheduler and executors of sessions."""
