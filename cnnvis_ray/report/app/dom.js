// Elements from data: text is always text, never markup; styles are set by property.
"use strict";

function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : clean(String(child)));
  }
  return node;
}

// Show control characters as what they are and cut very long texts.
function clean(text, most = 300) {
  const shown = text.replace(/[\u0000-\u001f\u007f]/g, (c) => String.fromCharCode(0x2400 + (c.charCodeAt(0) & 31)));
  return shown.length > most ? shown.slice(0, most) + "…" : shown;
}

// A name of the data, kept apart from the text around it whichever way it is written.
function name(text, most) {
  return h("bdi", { title: text.length > 40 ? clean(text, 1000) : null }, clean(text, most));
}

function shape(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  return add(node, children);
}

function show(number, digits = 3) {
  if (number === null || number === undefined) return "–";
  if (Number.isInteger(number) && Math.abs(number) < 1e9) return number.toLocaleString("en");
  const size = Math.abs(number);
  if (size >= 1e6 || size < 1e-3) return number === 0 ? "0" : number.toExponential(1);
  return Number(number.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 4 });
}

function percent(share) {
  if (typeof share !== "number") return "–";
  return (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %";
}

function address(...parts) {
  return "#/" + parts.map((part) => encodeURIComponent(String(part).toWellFormed?.() ?? part)).join("/");
}

function link(parts, ...children) {
  return h("a", { href: address(...parts) }, ...children);
}

function section(title, ...children) {
  const found = children.flat(Infinity).filter(Boolean);
  if (!found.length) return null;
  return h("section", {}, h("h2", {}, title), found);
}

function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "–");
  return h("dl", { class: "facts" }, known.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

function choice(label, options, value, change) {
  const select = h("select", { onchange: (event) => change(event.target.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, clean(text, 60))));
  return h("label", { class: "choice" }, h("span", {}, label), select);
}
