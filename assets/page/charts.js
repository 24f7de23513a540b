// Small charts of the last hour, drawn as SVG. Screen readers get the numbers as a sentence.
import { el, svg } from "./dom.js";
import { number } from "./format.js";

const WIDTH = 240;
const HEIGHT = 56;
const GAP = 4;

// series: [{name, values, kind}], drawn as stacked bars; null is a gap. digits: of the numbers shown.
export function chart(title, series, { total, labels }) {
  const stacks = series[0].values.map((_, index) => series.map(({ values }) => values[index] ?? 0));
  const most = Math.max(1e-9, ...stacks.map((stack) => stack.reduce((sum, value) => sum + value, 0)));
  const width = WIDTH / stacks.length;
  const bars = stacks.flatMap((stack, index) => {
    let bottom = HEIGHT;
    return stack.map((value, kind) => {
      const height = value ? Math.max(2, (value / most) * (HEIGHT - 2)) : 0;
      bottom -= height;
      return svg("rect", { x: index * width + GAP / 2, y: bottom, width: width - GAP, height, rx: 1.5, class: series[kind].kind });
    });
  });
  const base = svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis" });
  const said = series.map(({ name, values }) => `${name}: ${values.map((value, index) => `${labels[index]} ${value === null ? "–" : number(value, 2)}`).join(", ")}`).join(". ");
  return el("figure", { class: "chart" }, el("figcaption", {}, el("span", { class: "soft small" }, title), el("strong", { class: "numeric" }, total)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + 1}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}. ${said}` }, base, ...bars));
}
