// The runs: columns as the page carries them, and how numbers are written.
// All times are microseconds since the run began.

const NUM_COLOURS = 10;

// One attempt at a task is a row of the columns; the lanes have their rows in the order of time.
class Run {
  constructor(source) {
    Object.assign(this, source);
    const { attempts } = source;
    this.count = attempts.begin.length;
    this.begin = Float64Array.from(attempts.begin);
    this.end = Float64Array.from(attempts.end);
    this.stage = Int32Array.from(attempts.stage);
    this.lane = Int32Array.from(attempts.lane);
    this.task = Int32Array.from(attempts.task);
    this.errors = new Map(source.errors);
    this.laneRows = [];
    this.laneOwners = [];
    for (const [worker, count] of source.lanes) {
      for (let i = 0; i < count; i++) {
        this.laneRows.push([]);
        this.laneOwners.push({ worker, first: i === 0, count });
      }
    }
    this.taskRows = source.tasks.map(() => []);
    for (let row = 0; row < this.count; row++) {
      this.laneRows[this.lane[row]].push(row);
      this.taskRows[this.task[row]].push(row);
    }
    this.stages.forEach((stage, number) => { stage.number = number; });
    for (let row = 0; row < this.count; row++) {
      const stage = this.stages[this.stage[row]];
      stage.begin = Math.min(stage.begin ?? Infinity, this.begin[row]);
      stage.end = Math.max(stage.end ?? 0, this.end[row]);
    }
  }

  state(row) {
    return this.states[this.attempts.state[row]];
  }

  isSecondCopy(row) {
    return this.attempts.speculative[row] === 1;
  }

  // What a reader may want to look into: what failed, was broken off or was done again.
  isTrouble(row) {
    const state = this.state(row);
    return state === "failed" || state === "cancelled" || this.attempts.number[row] > 0;
  }

  // All attempts at the task of a row.
  siblings(row) {
    return this.taskRows[this.task[row]];
  }
}

const source = JSON.parse(document.getElementById("data").textContent).runs;
const decoded = new Map();

function runNumber(index) {
  if (!decoded.has(index)) decoded.set(index, new Run(source[index]));
  return decoded.get(index);
}

function colourOf(stage) {
  return stage % NUM_COLOURS;
}

// ---- numbers as people read them: three digits and a unit

function threeDigits(value) {
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

function scaled(value, units) {
  if (Math.round(value) < 1000) return `${Math.round(value)}${units[0]}`;
  let unit = 1;
  for (value /= 1000; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000;
  return `${threeDigits(value)}${units[unit]}`;
}

function countText(value) {
  return scaled(value, ["", "k", "M", "G", "T"]);
}

function sizeText(value) {
  return scaled(value, [" B", " kB", " MB", " GB", " TB"]);
}

function lengthText(us) {
  if (us >= 59.95e6) {
    const whole = Math.round(us / 1e6);
    const [minutes, seconds] = [Math.floor(whole / 60), whole % 60];
    if (whole < 3600) return `${minutes} min ${String(seconds).padStart(2, "0")} s`;
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  }
  for (const [unit, size] of [["s", 1e6], ["ms", 1e3], ["us", 1]]) {
    if (us >= 0.9995 * size) return `${threeDigits(us / size)} ${unit}`;
  }
  return "0 s";
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// A query as one line.
function oneLine(name) {
  return name.replace(/\s+/g, " ").trim() || "(no name)";
}
