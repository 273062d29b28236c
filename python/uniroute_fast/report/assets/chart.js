// Charts: axes, curves with bands, points with whiskers, stacked areas.

/** Round numbers that span a range, some `wanted` of them. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** 1, 2 and 5 times powers of ten; powers alone, or every second one, where these are too many. */
function logTicks(low, high, wanted) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const from = (factors, stride) => {
    const found = [];
    for (let e = first; e <= last; e += stride) for (const f of factors) found.push(f * 10 ** e);
    return found.filter((x) => x >= low * (1 - 1e-9) && x <= high * (1 + 1e-9)).map((x) => Number(x.toPrecision(6)));
  };
  return [from([1, 2, 5], 1), from([1], 1), from([1], 2)].find((t) => t.length <= wanted) ?? from([1], 3);
}

/** A map from data to pixels, with its inverse. */
function scale(low, high, from, to, log = false) {
  const f = log ? Math.log : (x) => x, inverse = log ? Math.exp : (x) => x;
  const span = f(high) - f(low) || 1;
  const at = (x) => from + ((f(x) - f(low)) / span) * (to - from);
  at.inverse = (pixel) => inverse(f(low) + ((pixel - from) / (to - from)) * span);
  return at;
}

/**
 * A chart in a host, drawn anew when the host's width changes.
 * layout(width) gives {x: {low, high, log, ticks, label, format}, y: {low, high, format}, height};
 * draw({frame, x, y, top, bottom}) draws into the SVG group `frame` with the scales x and y.
 */
function chart(host, id, label, layout, draw) {
  const element = svg("svg", { class: "chart", id, role: "img", "aria-label": label });
  const [left, top, below] = [46, 10, 40];
  let x;
  function redraw() {
    const width = Math.max(240, host.clientWidth);
    const plan = layout(width);
    const [right, bottom] = [width - 10, plan.height - below];
    x = scale(plan.x.low, plan.x.high, left, right, plan.x.log);
    const y = scale(plan.y.low, plan.y.high, bottom, top);
    const axes = svg("g");
    for (const t of ticks(plan.y.low, plan.y.high, Math.max(3, plan.height / 60))) {
      const kind = t === 0 && plan.y.low < 0 ? "zero" : "grid";
      axes.append(
        svg("line", { class: kind, x1: left, x2: right, y1: y(t), y2: y(t) }),
        svg("text", { x: left - 6, y: y(t) + 4, "text-anchor": "end" }, plan.y.format(t)));
    }
    for (const t of plan.x.ticks ?? (plan.x.log ? logTicks : ticks)(plan.x.low, plan.x.high, width / 80)) {
      const anchor = x(t) > right - 14 ? "end" : x(t) < left + 14 ? "start" : "middle";
      axes.append(svg("text", { x: x(t), y: bottom + 17, "text-anchor": anchor }, plan.x.format(t)));
    }
    axes.append(svg("text", { x: (left + right) / 2, y: plan.height - 4, "text-anchor": "middle" }, plan.x.label));
    const clip = svg("clipPath", { id: id + "-inside" }, svg("rect", { x: left - 8, y: 0, width: right - left + 16, height: bottom }));
    const frame = svg("g", { "clip-path": `url(#${id}-inside)` });
    element.setAttribute("viewBox", `0 0 ${width} ${plan.height}`);
    element.setAttribute("height", plan.height);
    element.replaceChildren(clip, axes, frame);
    draw({ frame, x, y, top, bottom });
  }
  host.append(element);
  new ResizeObserver(redraw).observe(host);
  /** Call `handle` with where the pointer is on x: when pressed and, if wanted, when it hovers. */
  function onpoint(handle, hover) {
    const at = (event) => handle(x.inverse(event.clientX - element.getBoundingClientRect().left));
    element.addEventListener("pointerdown", at);
    element.addEventListener("pointermove", (event) => { if (hover || event.buttons) at(event); });
  }
  return { redraw, onpoint };
}

const path = (points) => "M" + points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L");

/** Dashes tell apart what shares a colour. */
const DASHES = ["", "7 4", "2 3"];

function curve(points, style, main = false) {
  return svg("path", { class: `curve ${main ? "main" : ""}`, d: path(points), "stroke-dasharray": DASHES[style] });
}

function swatch(style) {
  return svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 25, y1: 6, y2: 6, stroke: "currentColor", "stroke-width": 3, "stroke-dasharray": DASHES[style] }));
}

/** The least and greatest value that some intervals reach, with a little air. */
function span(lows, highs) {
  const low = Math.min(...lows), high = Math.max(...highs), air = (high - low || 0.02) * 0.05;
  return { low: low - air, high: high + air };
}

/**
 * Quality over cost: a line through `line`, and `points`.
 * All are {name, cost, quality, error, kind}; those of `line` go by rising cost. Costs are shown on a
 * log scale where they differ by much. Returns {mark(point)}: a marker to move.
 */
function frontier(host, id, label, line, points) {
  const all = [...line, ...points];
  const costs = all.map((p) => p.cost);
  const [low, high] = [Math.min(...costs), Math.max(...costs)];
  const log = low > 0 && high / low > 20;
  const air = log ? 1.1 : 1 + (low === high ? 0.1 : 0);
  const error = (p) => (known(p.error) ? p.error : 0);
  const tall = span(all.map((p) => p.quality - error(p)), all.map((p) => p.quality + error(p)));
  let marked = line[0];
  const made = chart(host, id, label,
    () => ({
      height: 320,
      x: { low: log ? low / air : Math.min(0, low), high: high * air, log, format: amount, label: "mean cost of a prompt" },
      y: { ...tall, format: (q) => fixed(q, 2) },
    }),
    ({ frame, x, y }) => {
      for (const p of points) {
        const at = { cx: x(p.cost), cy: y(p.quality) };
        const dot = svg("circle", { ...at, r: 4, class: p.kind }, svg("title", {}, `${visible(p.name)}: ${fixed(p.quality)} at ${amount(p.cost)}`));
        if (known(p.error)) frame.append(svg("line", { class: `whisker ${p.kind}`, x1: at.cx, x2: at.cx, y1: y(p.quality - p.error), y2: y(p.quality + p.error) }));
        frame.append(dot);
      }
      const band = [...line.map((p) => [x(p.cost), y(p.quality + error(p))]), ...line.map((p) => [x(p.cost), y(p.quality - error(p))]).reverse()];
      frame.append(svg("g", { class: "s0" },
        svg("path", { class: "band", d: path(band) + "Z" }),
        curve(line.map((p) => [x(p.cost), y(p.quality)]), 0, true),
        svg("circle", { class: "dot", r: 7, cx: x(marked.cost), cy: y(marked.quality) })));
    });
  return { mark: (point) => { marked = point; made.redraw(); } };
}
