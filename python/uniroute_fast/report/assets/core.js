"use strict";

// Elements, numbers and tables: what both reports are made of.

const FIGURES = JSON.parse(document.getElementById("figures").textContent);

/** An element with properties and children. Strings become text, never markup. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value == null) continue;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** The same in SVG. */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

/** Text with the characters spelt out that would be invisible or reorder what is around them. */
function visible(text) {
  const code = (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0");
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g, code);
}

/** A name or a prompt from the data, on its own terms as to direction. */
const given = (text) => el("bdi", {}, visible(text));

const known = Number.isFinite;
const fixed = (x, digits = 3) => (known(x) ? x.toFixed(digits).replace(/^(-?)0\./, "$1.") : "–");
const percent = (x, digits = 0) => (known(x) ? (100 * x).toFixed(digits).replace("-", "−") + "%" : "–");
const signed = (x, digits = 3) => (known(x) ? (x > 0 ? "+" : x < 0 ? "−" : "±") + fixed(Math.abs(x), digits) : "–");
const withError = (text, error, digits = 3) => (known(error) ? `${text} ± ${fixed(error, digits)}` : text);
const count = (n) => n.toLocaleString("en-US");

/** An error for a tile. */
const tileError = (error, digits = 3) => (known(error) ? fixed(error, digits) : null);

/** A number of any size in three figures or so. */
function amount(x) {
  if (!known(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size < 1e-4 || size >= 1e9) return x.toExponential(2);
  if (size >= 100) return x.toLocaleString("en-US", { maximumFractionDigits: 0 });
  return String(Number(x.toPrecision(3)));
}

/** A p-value. */
const probability = (p) => (p < 1e-4 ? p.toExponential(0) : p.toPrecision(2).replace(/^0\./, "."));

function section(id, title, note, ...children) {
  return el("section", { id, "aria-labelledby": id + "-title" },
    el("h2", { id: id + "-title" }, title), note && el("p", { class: "note" }, note), ...children);
}

/** One figure, large; its error, if known, smaller beside it. */
function tile(label, value, note, { error, tone } = {}) {
  return el("div", { class: "card tile" },
    el("span", {}, label), el("b", { class: tone }, value, error && el("span", {}, ` ± ${error}`)), el("small", {}, note));
}

/**
 * A table; on a phone each row becomes a card with the columns' names beside the cells.
 * columns: [{label, cell(row) -> text or element, kind: "text"|"wide"}]; the first names the row.
 */
function table(caption, columns, rows, isMain = () => false) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.kind }, column.label)));
  const body = rows.map((row) => el("tr", { class: isMain(row) ? "main" : null },
    columns.map((column, i) => i === 0
      ? el("th", { scope: "row" }, column.cell(row))
      : el("td", { "data-label": column.label, class: column.kind }, column.cell(row)))));
  return el("table", {}, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, body));
}

/** Buttons of which one is pressed. */
function segments(label, options, chosen, onchange) {
  const group = el("div", { class: "segments", role: "group", "aria-label": label });
  for (const [value, text] of options) {
    group.append(el("button", {
      type: "button", "data-value": value, "aria-pressed": value === chosen,
      onclick: (event) => {
        for (const other of group.children) other.setAttribute("aria-pressed", other === event.currentTarget);
        onchange(value);
      },
    }, text));
  }
  return group;
}

/** A labelled slider over 0..last that says what it stands on. */
function slider(id, label, last, start, say, onchange) {
  const output = el("output", { for: id });
  const input = el("input", { type: "range", id, min: 0, max: last, step: 1, value: start });
  const update = () => {
    output.textContent = say(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
    onchange(Number(input.value));
  };
  input.addEventListener("input", update);
  const element = el("div", { class: "slider" }, el("label", { for: id }, el("span", {}, label), output), input);
  return { element, update, set: (value) => { input.value = value; update(); } };
}

/** Bars: [{name, value, text, colour}], each of `most`. */
function bars(rows, most) {
  return rows.map(({ name, value, text, colour }) => {
    const fill = el("i", { class: colour });
    fill.style.width = (100 * value) / most + "%";
    return el("div", {}, name, el("div", { class: "track" }, fill), el("span", { class: "num" }, text));
  });
}

/** What ends both reports: the figures as a file. */
function finish(name, ...notes) {
  document.getElementById("footer").append(
    ...notes.map((note) => el("p", {}, note)),
    el("button", {
      type: "button", id: "download",
      onclick: () => {
        const text = document.getElementById("figures").textContent;
        const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: name });
        link.click();
        URL.revokeObjectURL(link.href);
      },
    }, "Save the figures as JSON"));
}
