// The report of an evaluation.

const METHODS = FIGURES.methods;
const SUBJECT = (METHODS.find((m) => m.method === "uniroute") ?? METHODS[0]).method;
const BEST_FIRST = [...METHODS].sort((a, b) => b.area - a.area);
const REFERENCE = FIGURES.reference;
const FIRST_SHOWN = new Set([SUBJECT, REFERENCE, "kmeans", "learned_map", "hierarchical"]);

/** Colour and dash of each method: the subject and the reference keep the first two. */
const STYLES = new Map(
  [...new Set([SUBJECT, REFERENCE, ...METHODS.map((m) => m.method)])].map((name, i) =>
    [name, i < 2 ? { colour: `s${i}`, dash: 0 } : { colour: `s${2 + ((i - 2) % 6)}`, dash: Math.floor((i - 2) / 6) % 3 }]));

function headline() {
  const subject = METHODS.find((m) => m.method === SUBJECT);
  const { trials, settings } = FIGURES;
  const tiles = [tile(`Area, ${SUBJECT}`, fixed(subject.area), "mean quality over all budgets", { error: tileError(subject.area_2se) })];
  if (SUBJECT !== REFERENCE) {
    const tone = subject.sign_test_p < 0.05 ? (subject.gain > 0 ? "good" : "bad") : "";
    tiles.push(tile(`Gain on ${REFERENCE}`, signed(subject.gain),
      `better in ${subject.wins} of ${trials} trials, p ${probability(subject.sign_test_p)}`, { error: tileError(subject.gain_2se), tone }));
  }
  tiles.push(tile("Cost saved at equal quality", percent(1 - subject.qnc, 1),
    `against the best single LLM; its quality reached in ${percent(subject.reached)} of trials`,
    { error: known(subject.qnc_2se) ? percent(subject.qnc_2se, 1) : null }));
  if (FIGURES.pool)
    tiles.push(tile("The same, all LLMs in one pool", FIGURES.pool.reached ? percent(1 - FIGURES.pool.qnc, 1) : "not reached",
      `${count(FIGURES.pool.test)} held-out prompts, ${count(FIGURES.pool.models.length)} LLMs`));
  const lede = `${trials} ${trials === 1 ? "trial" : "trials"}: ${count(settings.train)} training, ${count(settings.n_val)} validation and ` +
    `${count(settings.test)} test prompts; ${count(settings.seen)} LLMs seen, ${count(settings.unseen)} unseen. ` +
    "Test prompts are routed among the unseen LLMs. ± is two standard errors.";
  return [el("p", { class: "lede" }, lede), el("div", { class: "tiles" }, tiles)];
}

function curves() {
  const shown = new Set(METHODS.map((m) => m.method).filter((name) => FIRST_SHOWN.has(name)));
  const budgets = FIGURES.budgets, last = budgets.length - 1;
  let view = "quality", bands = true, at = Math.round(last / 4);
  const valueAt = (name, i = at) => FIGURES.curves[name][view][i];
  const errorAt = (name, i = at) => FIGURES.curves[name][view + "_2se"][i];

  const host = el("div", { class: "card" });
  const made = chart(host, "curves", "Deferral curves: mean quality by budget",
    (width) => {
      const lows = [], highs = [];
      for (const name of shown.size ? shown : [SUBJECT])
        // Without the cheapest LLM alone, whose quality may lie far below all that follows.
        for (let i = 1; i <= last; i++) {
          const error = bands && known(errorAt(name, i)) ? errorAt(name, i) : 0;
          lows.push(valueAt(name, i) - error);
          highs.push(valueAt(name, i) + error);
        }
      return {
        height: Math.min(520, Math.max(300, width * 0.7)),
        x: { low: 0, high: 1, format: (b) => percent(b), label: "budget: share of the range of costs" },
        y: { ...span(lows, highs), format: (q) => (view === "gain" ? signed(q, 2) : fixed(q, 2)) },
      };
    },
    ({ frame, x, y, top, bottom }) => {
      frame.append(svg("line", { class: "cross", x1: x(budgets[at]), x2: x(budgets[at]), y1: top, y2: bottom }));
      // The subject last: on top.
      for (const name of [...shown].sort((a, b) => (a === SUBJECT) - (b === SUBJECT))) {
        const { colour, dash } = STYLES.get(name);
        const group = svg("g", { class: colour, "data-method": name });
        const edge = (sign) => budgets.map((b, i) => [x(b), y(valueAt(name, i) + sign * errorAt(name, i))]);
        if (bands && known(errorAt(name))) group.append(svg("path", { class: "band", d: path([...edge(1), ...edge(-1).reverse()]) + "Z" }));
        group.append(curve(budgets.map((b, i) => [x(b), y(valueAt(name, i))]), dash, name === SUBJECT));
        group.append(svg("circle", { class: "dot", r: 4.5, cx: x(budgets[at]), cy: y(valueAt(name)) }));
        frame.append(group);
      }
    });

  const legend = el("div", { class: "legend", role: "group", "aria-label": "Methods shown" });
  const heading = el("div", { class: "head" }, el("span", {}, "method"), el("span", {}));
  const readings = new Map();
  legend.append(heading);
  for (const { method } of BEST_FIRST) {
    const { colour, dash } = STYLES.get(method);
    const reading = el("output", {});
    readings.set(method, reading);
    legend.append(el("button", {
      type: "button", "data-method": method, "aria-pressed": shown.has(method), title: FIGURES.about?.[method],
      onclick: (event) => {
        if (!shown.delete(method)) shown.add(method);
        event.currentTarget.setAttribute("aria-pressed", shown.has(method));
        made.redraw();
      },
    }, el("span", { class: colour }, swatch(dash)), el("span", {}, visible(method)), reading));
  }
  function read() {
    for (const [name, reading] of readings)
      reading.textContent = view === "gain" ? withError(signed(valueAt(name)), errorAt(name)) : withError(fixed(valueAt(name)), errorAt(name));
    heading.lastChild.textContent = `${view === "gain" ? "gain" : "quality"} at ${percent(budgets[at])}`;
    made.redraw();
  }
  const budget = slider("budget", "Budget", last, at, (i) => percent(budgets[i]), (i) => { at = i; read(); });
  made.onpoint((b) => budget.set(Math.min(last, Math.max(0, Math.round(b * last)))), true);
  const controls = el("div", { class: "bar" },
    segments("Show", [["quality", "Quality"], ["gain", `Gain on ${REFERENCE}`]], view, (value) => { view = value; read(); }),
    el("label", { class: "check" }, el("input", { type: "checkbox", id: "bands", checked: "", onchange: (event) => { bands = event.target.checked; made.redraw(); } }), "bands, ± 2 SE"));
  host.prepend(controls);
  host.append(budget.element);
  budget.update();
  return section("deferral", "Deferral curves",
    "Mean quality of the answers as the budget grows from sending every prompt to the cheapest LLM. Pools differ between trials, so the budget is a share " +
    `of each pool's range of costs. Most of a band is the split, which all methods share: “Gain on ${REFERENCE}” takes it out.`,
    el("div", { class: "split" }, host, el("div", { class: "card" }, legend)));
}

function methodsTable() {
  const small = (error, digits = 4) => (known(error) ? el("small", {}, ` ± ${fixed(error, digits)}`) : null);
  const columns = [
    { label: "Method", cell: (m) => visible(m.method) },
    { label: "Area", cell: (m) => el("span", {}, fixed(m.area, 4), small(m.area_2se)) },
    { label: `Gain on ${REFERENCE}`, cell: (m) => (m.method === REFERENCE ? "–" : el("span", {}, signed(m.gain, 4), small(m.gain_2se))) },
    { label: "Wins–losses", cell: (m) => (m.method === REFERENCE ? "–" : `${m.wins}–${m.losses}`) },
    { label: "Sign test p", cell: (m) => (m.method === REFERENCE ? "–" : probability(m.sign_test_p)) },
    { label: "Area, first half", cell: (m) => fixed(m.area_50, 4) },
    { label: "Cost at equal quality", cell: (m) => percent(m.qnc, 1) },
    { label: "Reached", cell: (m) => percent(m.reached) },
    { label: "Peak quality", cell: (m) => fixed(m.peak_quality, 4) },
  ];
  const about = Object.entries(FIGURES.about ?? {}).flatMap(([name, text]) => [el("dt", {}, visible(name)), el("dd", {}, visible(text))]);
  return section("methods", "Methods",
    "Area is the mean quality over all budgets. Cost at equal quality is the least cost that equals the most accurate single LLM, relative to that LLM's cost: " +
    "100% where it is never reached. Wins, losses and the two-sided sign test compare Areas trial by trial.",
    el("div", { class: "card" }, table(`${FIGURES.trials} trials, the highest Area first; ± two standard errors`, columns, BEST_FIRST, (m) => m.method === SUBJECT)),
    about.length ? el("details", {}, el("summary", {}, "What the methods do"), el("dl", { class: "glossary" }, about)) : null);
}

function wholePool(pool) {
  const [best, ...stops] = pool.outcomes;
  const colours = coloursOf(stops);
  const last = stops.length - 1;
  const tiles = el("div", { class: "tiles" }), shares = el("div", { class: "bars", id: "shares" });
  const unit = () => el("p", { class: "note" }, "Costs are in ", given(pool.cost_unit), ".");
  const areaHost = el("div", { class: "card" }, el("h3", {}, "Who answers"), unit());
  const lineHost = el("div", { class: "card" }, el("h3", {}, "Quality and cost"), unit());
  const areas = shareAreas(areaHost, stops, colours);
  const asPoint = (o) => ({ name: o.name, cost: perPrompt(o), quality: o.quality, error: o.quality_2se });
  const line = stops.map(asPoint);
  const singles = pool.models.map((m) => ({ ...m, kind: m.name === pool.best_single ? "dot s2" : "hollow s1" }));
  const plane = frontier(lineHost, "pool-chart", "Quality by mean cost: the router and each LLM alone", line, singles);
  const cards = clusterCards(pool);
  const say = (i) => `cost weight ${amount(stops[i].cost_weight)}, mean cost ${amount(perPrompt(stops[i]))}`;
  const stop = slider("stop", "Cost weight", last, stops.indexOf(cheapestAsGood(stops)), say, (i) => {
    tiles.replaceChildren(...outcomeTiles(stops[i], best, pool.cost_unit, "Quality, measured"));
    shares.replaceChildren(...shareBars(stops[i], colours));
    areas.mark(i);
    plane.mark(line[i]);
    cards.serve(stops[i]);
  });
  areas.onpoint((x) => stop.set(Math.min(last, Math.max(0, Math.round(x)))), false);
  areaHost.append(stop.element);
  lineHost.append(el("p", { class: "note" }, "The line is the router with ± two standard errors; each ring is one LLM for all prompts, the dot among them the most accurate: ",
    given(pool.best_single), "."));
  stop.update();
  const unroutable = pool.unroutable ? ` ${count(pool.unroutable)} more hold nothing that the embedder knows and are left out.` : "";
  return [
    section("pool", "The whole pool",
      `All ${count(pool.models.length)} LLMs in one pool: a router fitted on ${count(pool.train)} prompts, ${count(pool.validation)} labels for each LLM, one split. ` +
      `It routes ${count(pool.test)} held-out prompts; quality is what was measured on them.${unroutable}`,
      el("div", { class: "halves" }, areaHost, lineHost), tiles, el("div", { class: "card" }, shares)),
    cards.element,
  ];
}

function clusterCards(pool) {
  const most = Math.max(...pool.clusters.map((c) => c.prompts));
  const llm = ({ model, cost, quality, quality_2se: error }) => [given(model), el("small", {}, ` quality ${withError(fixed(quality, 2), error, 2)}, cost ${amount(cost)}`)];
  const serving = new Map();
  const grid = el("div", { class: "clusters" });
  for (const c of pool.clusters) {
    const size = el("i"), served = el("dd", {});
    size.style.width = (100 * c.prompts) / most + "%";
    serving.set(c.cluster, served);
    const tasks = Object.entries(c.tasks).filter(([task]) => task).slice(0, 4);
    grid.append(el("article", { class: "card cluster", "data-cluster": c.cluster },
      el("div", { class: "top" },
        el("h3", {}, c.background ? "Unlike the training prompts" : `Cluster ${c.cluster}`),
        el("span", { class: "num note" }, `${count(c.prompts)} prompts, ${percent(c.prompts / pool.test, 1)}`)),
      el("div", { class: "size" }, size),
      tasks.length ? el("div", { class: "tags" }, tasks.map(([task, n]) => el("span", { class: "tag" }, given(task), ` ${percent(n / c.prompts)}`))) : null,
      el("dl", {},
        el("dt", {}, "Best LLM"), el("dd", {}, llm(c.best)),
        c.nearly.model === c.best.model ? [] : [el("dt", {}, "Nearly as good"), el("dd", {}, llm(c.nearly))],
        el("dt", {}, "Answers now"), served),
      c.typical.map((text) => el("blockquote", { dir: "auto", tabindex: 0 }, visible(text)))));
  }
  return {
    element: section("clusters", "Clusters",
      "Groups of prompts that the router tells apart, with the prompts nearest to their middle. The best LLM is the one that the router predicts to be best there; " +
      "nearly as good is the cheapest within .02 of it; their qualities are measured. “Answers now” follows the cost weight above.", grid),
    serve: (outcome) => {
      for (const c of outcome.clusters)
        serving.get(c.cluster).replaceChildren(given(c.model), el("small", {}, ` ${percent(c.model_share)}, quality ${withError(fixed(c.quality, 2), c.quality_2se, 2)}`));
    },
  };
}

document.getElementById("report").append(...headline(), curves(), methodsTable(), ...(FIGURES.pool ? wholePool(FIGURES.pool) : []));
finish("evaluation.json", "The figures are those that the command prints with --json, less the run times.");
