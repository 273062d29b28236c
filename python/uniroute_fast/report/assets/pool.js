// Who answers: shares of LLMs under a rule. An outcome is one rule's {rows, spend, quality, models, ...}.

const perPrompt = (outcome) => outcome.spend / outcome.rows;

/** Colours for the LLMs that answer most over all outcomes: a map from name to class. */
function coloursOf(outcomes, wanted = 7) {
  const totals = new Map();
  for (const outcome of outcomes)
    for (const [name, n] of Object.entries(outcome.models)) totals.set(name, (totals.get(name) ?? 0) + n / outcome.rows);
  const most = [...totals].sort((a, b) => b[1] - a[1]).slice(0, wanted);
  return new Map(most.map(([name], i) => [name, `s${i === 1 ? 7 : i}`]));
}

/** Bars of the LLMs that answer under an outcome, the rest together in one. */
function shareBars(outcome, colours, shown = 8) {
  const all = Object.entries(outcome.models).sort((a, b) => b[1] - a[1]);
  const listed = all.length > shown + 1 ? all.slice(0, shown) : all;
  const rest = all.slice(listed.length);
  const text = (n) => `${percent(n / outcome.rows, 1)} · ${count(n)}`;
  const rows = listed.map(([name, n]) => ({ name: given(name), value: n, text: text(n), colour: colours.get(name) ?? "others" }));
  const others = rest.reduce((sum, [, n]) => sum + n, 0);
  if (others) rows.push({ name: `${rest.length} others`, value: others, text: text(others), colour: "others" });
  return bars(rows, outcome.rows);
}

/** What an outcome comes to, as tiles against a reference outcome. */
function outcomeTiles(outcome, reference, unit, kind) {
  const saved = 1 - perPrompt(outcome) / perPrompt(reference);
  const against = `against ${reference.name}`;
  const { gain, gain_2se: error } = outcome;
  return [
    tile("Mean cost of a prompt", amount(perPrompt(outcome)), unit),
    tile("Cost saved", percent(saved, 1), against, { tone: saved > 0 ? "good" : "" }),
    tile(kind, fixed(outcome.quality), "± two standard errors over prompts", { error: tileError(outcome.quality_2se) }),
    tile("Quality gained", signed(gain), `${against}, same prompts`,
      { error: tileError(error), tone: !known(error) ? "" : gain > error ? "good" : gain < -error ? "bad" : "" }),
  ];
}

/** Of outcomes no worse than the reference, the one that spends least; else the best one. */
function cheapestAsGood(outcomes) {
  const asGood = outcomes.filter((o) => known(o.gain) && o.gain >= 0);
  return asGood.length
    ? asGood.reduce((a, b) => (perPrompt(b) < perPrompt(a) ? b : a))
    : outcomes.reduce((a, b) => (b.quality > a.quality ? b : a));
}

/** Shares of LLMs over outcomes that are positions 0, 1, ... of a slider: a stacked area chart. */
function shareAreas(host, outcomes, colours) {
  const names = [...colours.keys()];
  const last = outcomes.length - 1;
  let position = 0;
  const made = chart(host, "share-chart", "Share of prompts that each LLM answers, by cost weight",
    (width) => {
      const wanted = Math.min(last, Math.max(2, Math.floor(width / 110)));
      const stops = [...new Set(Array.from({ length: wanted + 1 }, (_, i) => Math.round((i * last) / Math.max(wanted, 1))))];
      return {
        height: 320,
        x: { low: 0, high: Math.max(last, 1), ticks: stops, format: (i) => amount(perPrompt(outcomes[i])), label: "mean cost of a prompt" },
        y: { low: 0, high: 1, format: (q) => percent(q) },
      };
    },
    ({ frame, x, y, top, bottom }) => {
      let below = outcomes.map(() => 0);
      for (const name of [...names, null]) {
        const above = outcomes.map((o, i) => (name === null ? 1 : below[i] + (o.models[name] ?? 0) / o.rows));
        const edge = [...above.map((v, i) => [x(i), y(v)]), ...below.map((v, i) => [x(i), y(v)]).reverse()];
        frame.append(svg("path", { class: `area ${name === null ? "others" : colours.get(name)}`, d: path(edge) + "Z" },
          svg("title", {}, name === null ? "others" : visible(name))));
        below = above;
      }
      frame.append(svg("line", { class: "pin", x1: x(position), x2: x(position), y1: top, y2: bottom }));
    });
  return { onpoint: made.onpoint, mark: (i) => { position = i; made.redraw(); } };
}
