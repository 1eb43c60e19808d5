// What each rank shows from top to bottom: its tracks, where they are, and what a search finds.

// In pixels; where few ranks leave room, there is more of it.
const HEIGHT = { match: 7, phase: 16, run: 17, lane: 30, gap: 9, window: 11, stream: 17 };
const ROOMY_HEIGHT = { match: 9, phase: 19, run: 21, lane: 48, gap: 13, window: 15, stream: 22 };
const FOLDED_HEIGHT = { lane: 14, gap: 5 };
const SPACE = 2;
const MOST_ROOMY_RANKS = 2;
const MOST_PHASE_ROWS = 3, MOST_STREAM_ROWS = 6, MOST_WINDOW_ROWS = 4;
const ROWS_THAT_FIT = 14; // single streams of all ranks, before they are hidden at first

function range(from, to) {
  return Array.from({ length: to - from }, (_, index) => from + index);
}

// The tracks of a rank: the two lanes as people draw them by hand, with the phases that they go
// through; gaps between them; above, what the program ran; below, the single streams.
function tracksOf(rank) {
  const { numWork, numPhases } = rank;
  const kinds = (...names) => range(0, numWork).filter((i) => names.includes(KINDS[rank.kind[i]]));
  const compute = unionRow(rank, kinds("compute", "unclassified"), { merge: true });
  const communication = unionRow(rank, kinds("payload", "waiting"), { merge: true });
  const tracks = [{ kind: "match", label: "found", row: null, matched: null }];
  const add = (kind, label, ...rows) => rows.forEach((row, index) => {
    if (row.marks.length) tracks.push({ kind, label: index ? "" : label, row, matched: null });
  });
  const phases = range(numWork, numWork + numPhases);
  add("phase", "program", ...stackedRows(rank, phases, MOST_PHASE_ROWS));
  add("run", "phase", phaseRuns(rank, compute));
  add("lane", rank.laneLabels[0], compute);
  add("gap", "exposed · idle", gapRow(rank.gaps));
  const windows = range(numWork + numPhases, rank.begin.length);
  add("window", "under way", ...stackedRows(rank, windows, MOST_WINDOW_ROWS));
  add("lane", rank.laneLabels[1], communication);
  add("run", "phase", phaseRuns(rank, communication));
  const streams = rank.streams.map(() => []);
  for (let item = 0; item < numWork; item++) streams[rank.stream[item]].push(item);
  streams.forEach((order, stream) => {
    add("stream", rank.streams[stream], ...stackedRows(rank, order, MOST_STREAM_ROWS));
  });
  return tracks;
}

// Gives every track of a rank its place; tracks that are hidden get none.
function layOut(rank) {
  let y = SPACE;
  for (const track of rank.tracks) {
    const height = (rank.folded ? FOLDED_HEIGHT : rank.heights)[track.kind];
    track.shown = height !== undefined && (track.kind !== "match" || track.row !== null)
      && (track.kind !== "stream" || rank.showStreams);
    track.y = y;
    track.height = height;
    if (track.shown) y += height + SPACE;
  }
  rank.height = y + SPACE;
}

function prepare(ranks) {
  for (const rank of ranks) rank.tracks = tracksOf(rank);
  const streamRows = ranks.flatMap((rank) => rank.tracks).filter(({ kind }) => kind === "stream");
  for (const rank of ranks) {
    rank.folded = false;
    rank.heights = ranks.length > MOST_ROOMY_RANKS ? HEIGHT : ROOMY_HEIGHT;
    rank.showStreams = streamRows.length <= ROWS_THAT_FIT;
    layOut(rank);
  }
}

// What is searched for: text that names contain, capital or not, or /regular expression/.
function nameTest(query) {
  const regex = /^\/(.+)\/$/.exec(query);
  if (regex) {
    const pattern = new RegExp(regex[1], "i");
    return (name) => pattern.test(name);
  }
  return (name) => name.toLowerCase().includes(query.toLowerCase());
}

// Finds work and phases by name; every track with items gets a row of those that were found.
// Returns null where nothing is searched for; throws SyntaxError for a bad regular expression.
function findItems({ names, ranks }, query) {
  const test = query ? nameTest(query) : null;
  const wanted = test && names.map(test);
  const found = { query, items: [], numWork: 0, numPhases: 0, workTime: 0, current: -1 };
  for (const rank of ranks) {
    const matches = (item) => wanted[rank.name[item]];
    for (const track of rank.tracks) {
      if (!track.row?.order.length) continue;
      track.matched = test && unionRow(rank, track.row.order.filter(matches));
    }
    const items = test ? range(0, rank.numWork + rank.numPhases).filter(matches) : [];
    const work = items.filter((item) => item < rank.numWork);
    rank.tracks[0].row = work.length ? unionRow(rank, work, { style: STYLE.match }) : null;
    layOut(rank);
    found.numWork += work.length;
    found.numPhases += items.length - work.length;
    found.workTime += work.reduce((sum, item) => sum + rank.end[item] - rank.begin[item], 0);
    for (const item of items) found.items.push({ rank, item });
  }
  found.items.sort((a, b) => a.rank.begin[a.item] - b.rank.begin[b.item]);
  return test && found;
}
