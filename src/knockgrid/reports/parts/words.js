// Elements and numbers. Text from data only ever becomes a text node.
const $ = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((one) => one !== null && one !== undefined));
  return element;
}

function said(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "no value";
  const number = Number(String(value).replace("inf", "Infinity"));
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  if (number === 0) return "0";
  const size = Math.abs(number);
  const text = size >= 1e-3 && size < 1e5
    ? String(Number(number.toPrecision(digits)))
    : number.toExponential(1).replace("e-", "e−").replace("e+", "e");
  return text.replace(/^-/, "−");
}

function short(value) {
  if (value === null || Number.isNaN(value)) return "–";
  const number = Number(String(value).replace("inf", "Infinity"));
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  const size = Math.abs(number);
  const sign = number < 0 ? "−" : "";
  if (size < 0.005) return size === 0 ? "0" : `${sign}.00`;
  if (size < 1) return sign + size.toFixed(2).replace(/^0/, "");
  return sign + (size < 10 ? size.toFixed(1) : size < 1000 ? size.toFixed(0) : `${Math.round(size / 1000)}k`);
}

function percent(p) {
  if (p >= 0.995) return ">99 %";
  if (p < 0.0001) return "<0.01 %";
  return `${Number((100 * p).toPrecision(2))} %`;
}

// one visible line: a token may be a line break, and a space in front is part of it
function visible(text) {
  return text.replace(/\r\n|\n|\r/g, "⏎").replace(/\t/g, "⇥").replace(/^ /, "␣") || "∅";
}

function tokenOf(text, more = "", title = null) {
  return make("bdi", { class: `token ${more}`.trim(), title }, visible(text));
}

function counted(n, what) {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

function labelled(metric) {
  return metric.label.replace(/^Avg\. /, "");
}

function choose(select, entries, changed) {
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
  select.addEventListener("change", changed);
}
