// Times, numbers and statuses as a person reads them, and elements made of plain text.

// The worst first: the mark says by its shape what its colour says.
export const MARKS = {
  alert: "◆",
  anomaly: "▲",
  fault: "▲",
  unknown: "?",
  silent: "–",
  failing: "×",
  "without a model": "○",
  "no record yet": "○",
  normal: "·",
};
const RANKS = Object.fromEntries(Object.keys(MARKS).map((status, rank) => [status, rank]));
const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const MINUTES = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "2-digit", month: "short" });

export const rankOf = (status) => RANKS[status] ?? 0;
export const clock = (time) => CLOCK.format(time);
export const hourAndMinute = (time) => MINUTES.format(time);
export const day = (time) => DAY.format(time);
export const utc = (time) => new Date(time).toISOString().replace("T", " ").replace("Z", " UTC");
export const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

// An element. What is given as text stays text, whatever is in it.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A mark with its word, for those who do not see it.
export function mark(status, shape = MARKS[status] ?? "?") {
  return make("span", { class: `mark ${status.replaceAll(" ", "-")}`, "aria-hidden": "true" }, shape);
}

// A moment by the reader's clock, with the day unless it is today's; UTC is shown on hover.
export function moment(time) {
  const isToday = new Date(time).toDateString() === new Date().toDateString();
  const text = isToday ? clock(time) : `${day(time)}, ${clock(time)}`;
  return make("time", { datetime: new Date(time).toISOString(), title: utc(time) }, text);
}

export function duration(milliseconds) {
  const seconds = Math.max(Math.round(milliseconds / 1000), 0);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Three digits are enough to compare with.
export function figure(value) {
  if (value === null || value === undefined) return "unknown";
  if (Math.abs(value) > 1e30) return "any";
  const size = Math.abs(value);
  if (size >= 100) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(3)));
}

// The divisor and the unit in which numbers up to `largest` are easy to read.
export function scaleOf(unit, largest) {
  if (!["B/s", "B", "bytes", "bit/s"].includes(unit)) return [1, unit];
  const [divisor, prefix] = PREFIXES.find(([one]) => largest >= one) ?? [1, ""];
  return [divisor, prefix + unit];
}

export function withUnit(value, unit) {
  if (value === null || value === undefined) return "unknown";
  if (Math.abs(value) > 1e30) return "any";
  const [divisor, name] = scaleOf(unit, Math.abs(value));
  return `${figure(value / divisor)} ${name}`.trim();
}
