/** An amount over time, in steps. The exact figures are those of the points; the picture may be a little off. */

/* global uPlot */
import { h, table } from "./dom.js";
import { amount, positionLink } from "./figures.js";
import { approximate, code, money, time } from "./words.js";

const HEIGHT = 220;
const DAY_SECONDS = 86_400;
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Chart {
  #plot = null;
  #points = [];
  #asset = null;
  #canvas = h("div", { class: "canvas", role: "img" });
  #readout = h("p", { class: "readout" });
  #table = table("The points of the chart", [["Time"], ["Position", "number"], ["Amount", "number"]]);
  #details = h(
    "details",
    { ontoggle: () => this.#fill() },
    h("summary", {}, "As a table"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "The points of the chart" },
      this.#table.element,
    ),
  );
  element = h("div", { class: "chart" }, this.#readout, this.#canvas, this.#details);
  #resize = new ResizeObserver(() => this.#plot?.setSize(this.#size()));
  #recolour = () => this.#asset && this.#make();

  /** `lines`: [{name, of: (point) => amount, colour: a CSS variable, fill: bool, dash: bool}], the first one is told. */
  constructor(ledger, lines) {
    this.ledger = ledger;
    this.lines = lines;
    this.#resize.observe(this.#canvas);
    dark.addEventListener("change", this.#recolour);
  }

  close() {
    dark.removeEventListener("change", this.#recolour);
    this.#resize.disconnect();
    this.#plot?.destroy();
  }

  /** `points`, the oldest first, each with its `time`, its `position` and what the lines are of. */
  draw(points, asset) {
    const sameScale = this.#asset === asset && this.#plot;
    this.#points = points;
    this.#asset = asset;
    if (sameScale) this.#plot.setData(this.#data());
    else this.#make();
    const last = points.at(-1);
    const values = points.map(this.lines[0].of);
    const [least, most] = values.reduce(
      ([a, b], value) => [value < a ? value : a, value > b ? value : b],
      [values[0], values[0]],
    );
    this.#canvas.setAttribute(
      "aria-label",
      `${this.lines[0].name} in ${code(asset)} from ${points[0].time} to ${last.time}: at least ${money(least, asset)}, ` +
        `at most ${money(most, asset)}, at the end ${money(this.lines[0].of(last), asset)}`,
    );
    this.#tell(null);
    this.#fill();
  }

  #data() {
    // One point alone would be no line.
    const points = this.#points.length === 1 ? [this.#points[0], this.#points[0]] : this.#points;
    const seconds = points.map((point) => Date.parse(point.time) / 1000);
    // Of a time without a length, uPlot makes years.
    if (seconds[0] === seconds.at(-1)) seconds[seconds.length - 1] += 1;
    return [seconds, ...this.lines.map((line) => points.map((point) => approximate(line.of(point), this.#asset)))];
  }

  #size = () => ({ width: Math.max(200, this.#canvas.clientWidth), height: HEIGHT });

  #make() {
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `11px ${style.fontFamily}`;
    const axis = {
      stroke: colour("--quiet"),
      font,
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
    };
    const stepped = uPlot.paths.stepped({ align: 1 });
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        // The last label of the scale may be in the middle of the end.
        padding: [8, 30, 0, 0],
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        cursor: { y: false, drag: { setScale: false, x: false }, points: { size: 7 } },
        scales: {
          x: { time: true },
          // From zero on, or what is filled would say something that is not so.
          y: { range: (_, least, most) => [Math.min(0, least * 1.08), Math.max(0, most * 1.08) || 1] },
        },
        axes: [
          { ...axis, grid: { show: false }, space: 90, values: (_, splits, __, ___, step) => timeLabels(splits, step) },
          { ...axis, size: 58, space: 45, values: (_, splits) => splits.map((value) => compact.format(value)) },
        ],
        series: [
          {},
          ...this.lines.map((line) => ({
            label: line.name,
            stroke: colour(line.colour),
            fill: line.fill && colour(`${line.colour}-fill`),
            width: line.fill ? 2 : 1.25,
            dash: line.dash && [4, 4],
            paths: stepped,
            points: { show: false },
          })),
        ],
        hooks: { setCursor: [(plot) => this.#tell(plot.cursor.idx)] },
      },
      this.#data(),
      this.#canvas,
    );
    this.#plot.over.addEventListener("click", () => {
      const point = this.#at(this.#plot.cursor.idx);
      if (point?.position) location.hash = this.ledger.link(["event", String(point.position)]);
    });
  }

  #at = (index) => this.#points[Math.min(index ?? Infinity, this.#points.length - 1)];

  /** The figures at the cursor, or at the end. */
  #tell(index) {
    const point = this.#at(index);
    if (!point) return;
    this.#readout.replaceChildren(
      time(point.time),
      ...this.lines.map((line) =>
        h(
          "span",
          { class: `key ${line.dash ? "dashed" : ""} ${line.colour.slice(2)}` },
          `${line.name} `,
          amount(line.of(point), this.#asset, { withCode: true }),
        ),
      ),
    );
  }

  #fill() {
    if (!this.#details.open) return this.#table.body.replaceChildren();
    const rows = [...this.#points]
      .reverse()
      .map((point) =>
        h(
          "tr",
          {},
          h("td", {}, time(point.time)),
          h("td", { class: "number" }, point.position ? positionLink(this.ledger, point.position) : "0"),
          h("td", { class: "number" }, amount(this.lines[0].of(point), this.#asset)),
        ),
      );
    this.#table.body.replaceChildren(...rows);
  }
}

/** A tick says the day only where it is another one than that of the tick before it. */
function timeLabels(splits, step) {
  let before = "";
  return splits.map((seconds) => {
    const text = new Date(seconds * 1000).toISOString();
    const day = text.slice(0, 10);
    if (step >= DAY_SECONDS) return day;
    const clock = step < 1 ? text.slice(11, 23) : step < 60 ? text.slice(11, 19) : text.slice(11, 16);
    const label = day === before ? clock : `${clock}\n${day}`;
    before = day;
    return label;
  });
}
