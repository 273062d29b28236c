// The report of a what-if.

const OUTCOMES = FIGURES.outcomes;
const BASE = OUTCOMES.find((o) => o.name === FIGURES.reference);
const ROUTED = OUTCOMES.filter((o) => known(o.cost_weight));
const UNIT = "in the unit of the pool's costs";

const ADVISED = cheapestAsGood(ROUTED);

function headline() {
  const best = OUTCOMES.find((o) => o.name === "best single LLM");
  const spent = (o) => `${amount(perPrompt(o) * 1000)} per 1,000 prompts, ${count(o.rows)} prompts`;
  const [single] = Object.keys(best.models);
  const tiles = [
    tile(`Spend, ${BASE.name}`, amount(BASE.spend), spent(BASE)),
    tile(`Expected quality, ${BASE.name}`, fixed(BASE.quality), BASE === best ? ["all prompts to ", given(single)] : "of the LLMs that answered", { error: tileError(BASE.quality_2se) }),
    tile("Spend, router", amount(ADVISED.spend), `${spent(ADVISED)}, cost weight ${amount(ADVISED.cost_weight)}`),
    tile("Saved at that cost weight", percent(1 - perPrompt(ADVISED) / perPrompt(BASE), 1), ["quality ", withError(signed(ADVISED.gain), ADVISED.gain_2se)],
      { tone: perPrompt(ADVISED) < perPrompt(BASE) ? "good" : "" }),
  ];
  const unroutable = FIGURES.rows - FIGURES.routable;
  const lede = `${count(FIGURES.rows)} prompts` + (unroutable ? `, ${count(unroutable)} of which cannot be routed and are left out` : "") +
    ". Quality is one less the loss that the pool's profiles predict; ± is two standard errors over prompts, and says nothing of how far the profiles are from the truth.";
  const foreign = FIGURES.unknown_served
    ? el("p", { class: "lede" }, `${count(FIGURES.unknown_served)} prompts were served by LLMs that are not in the pool: “as served” leaves them out.`) : null;
  return [el("p", { class: "lede" }, lede), foreign, el("div", { class: "tiles" }, tiles)].filter(Boolean);
}

function rules() {
  const host = el("div", { class: "card" });
  const point = (o) => ({ name: o.name, cost: perPrompt(o), quality: o.quality, error: o.quality_2se, kind: o === BASE ? "dot s2" : "hollow s1", rule: o });
  const line = ROUTED.map(point).sort((a, b) => a.cost - b.cost);
  const others = OUTCOMES.filter((o) => !known(o.cost_weight) && o.rows).map(point);
  const plane = frontier(host, "rules-chart", "Expected quality by mean cost, for each rule", line, others);
  host.append(el("p", { class: "note" }, "The line is the router at its cost weights; the dot is ", el("b", {}, BASE.name), ", rings are other rules."));
  const gain = (o) => (o === BASE ? "–" : el("span", {}, signed(o.gain, 4), el("small", {}, ` ± ${fixed(o.gain_2se, 4)}`)));
  const columns = [
    { label: "Rule", cell: (o) => visible(o.name) },
    { label: "Prompts", cell: (o) => count(o.rows) },
    { label: "Spend", cell: (o) => amount(o.spend) },
    { label: "Per 1,000", cell: (o) => amount(perPrompt(o) * 1000) },
    { label: "Saved", cell: (o) => (o === BASE ? "–" : percent(1 - perPrompt(o) / perPrompt(BASE), 1)) },
    { label: "Expected quality", cell: (o) => el("span", {}, fixed(o.quality, 4), el("small", {}, ` ± ${fixed(o.quality_2se, 4)}`)) },
    { label: `Gain on ${BASE.name}`, cell: gain },
  ];
  return {
    mark: (outcome) => plane.mark(point(outcome)),
    element: section("rules", "Rules", `Spend and expected quality of this log under each rule. Spend is ${UNIT}.`,
      host, el("div", { class: "card" }, table("Gains are on the same prompts", columns, OUTCOMES, (o) => o === BASE))),
  };
}

function answers(marker) {
  const colours = coloursOf(OUTCOMES);
  const tiles = el("div", { class: "tiles" }), shares = el("div", { class: "bars", id: "shares" });
  const llms = el("div", { class: "card" }), clusters = el("div", { class: "card" });
  const error = (part) => (known(part.quality_2se) ? el("small", {}, ` ± ${fixed(part.quality_2se)}`) : null);
  const quality = { label: "Expected quality", cell: (part) => el("span", {}, fixed(part.quality), error(part)) };
  const prompts = { label: "Prompts", cell: (part) => count(part.prompts) };
  const spend = { label: "Spend", cell: (part) => amount(part.spend) };
  const baseOf = new Map(BASE.clusters.map((c) => [c.cluster, c]));
  const change = (c) => {
    const before = baseOf.get(c.cluster);
    return before ? signed(c.quality - before.quality) : "–";
  };
  const saved = (c) => {
    const before = baseOf.get(c.cluster);
    return before?.spend ? percent(1 - c.spend / c.prompts / (before.spend / before.prompts), 1) : "–";
  };
  const named = (c) => {
    const [example] = FIGURES.typical[c.cluster] ?? [];
    return el("span", {}, `Cluster ${c.cluster}`, example && el("small", { class: "example", dir: "auto" }, visible(example)));
  };
  function show(outcome) {
    tiles.replaceChildren(...outcomeTiles(outcome, BASE, UNIT, "Expected quality"));
    shares.replaceChildren(...shareBars(outcome, colours));
    llms.replaceChildren(table("By LLM", [{ label: "LLM", cell: (m) => given(m.model) }, prompts, spend, quality], outcome.llms.slice(0, 30)));
    clusters.replaceChildren(table("By cluster", [
      { label: "Cluster", cell: named }, prompts, spend,
      { label: "Saved", cell: saved }, quality, { label: `v ${BASE.name}`, cell: change },
      { label: "Most often", kind: "wide", cell: (c) => el("span", {}, given(c.model), el("small", {}, ` ${percent(c.model_share)}`)) },
    ], outcome.clusters));
    marker(outcome);
  }
  const select = el("select", { id: "rule", onchange: (event) => show(OUTCOMES[event.target.value]) },
    OUTCOMES.map((o, i) => el("option", { value: i }, visible(o.name))));
  select.value = OUTCOMES.indexOf(ADVISED);
  show(ADVISED);
  return section("answers", "Who answers", "What a rule does, by LLM and by cluster of prompts; under a cluster's number, a prompt that is typical of it among those that the pool was fitted on.",
    el("div", { class: "bar" }, el("label", { for: "rule" }, "Rule"), select), tiles, el("div", { class: "card" }, shares), llms, clusters);
}

const RULES = rules();
document.getElementById("report").append(...headline(), RULES.element, answers(RULES.mark));
finish("what-if.json", "The figures are those that the command prints with --json, less the run time.");
