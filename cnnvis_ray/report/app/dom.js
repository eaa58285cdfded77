// Elements from data: text is always text, never markup; styles are set by property.
"use strict";

const SHAPES = /^(svg|rect|line|polyline|text|title)$/;

// h("p.quiet", { title: "more" }, child, ...): properties may be left out, so may children.
function h(spec, ...children) {
	const [tag, kind] = spec.split(".");
	const node = SHAPES.test(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
	if (kind) node.setAttribute("class", kind);
	const properties = children[0]?.constructor === Object ? children.shift() : {};
	for (const [key, value] of Object.entries(properties)) {
		if (value === null || value === undefined || value === false) continue;
		if (key === "style") Object.assign(node.style, value);
		else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
		else node.setAttribute(key, value === true ? "" : value);
	}
	return add(node, ...children);
}

function add(node, ...children) {
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
	return h("bdi", { title: text.length > 40 && clean(text, 1000) }, clean(text, most));
}

function show(number, digits = 3) {
	if (typeof number !== "number") return "–";
	if (Number.isInteger(number) && Math.abs(number) < 1e9) return number.toLocaleString("en");
	const size = Math.abs(number);
	if (size >= 1e6 || size < 1e-3) return number === 0 ? "0" : number.toExponential(1);
	return Number(number.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 4 });
}

function percent(share) {
	return typeof share === "number" ? (100 * share).toFixed(share < 0.0995 ? 1 : 0) + " %" : "–";
}

function address(...parts) {
	return "#/" + parts.map((part) => encodeURIComponent(String(part).toWellFormed?.() ?? part)).join("/");
}

function go(...parts) {
	location.hash = address(...parts);
}

function link(parts, ...children) {
	return h("a", { href: address(...parts) }, ...children);
}

function quiet(...children) {
	return h("p.quiet", ...children);
}

// A section exists only if there is something in it.
function section(title, ...children) {
	const found = children.flat(Infinity).filter(Boolean);
	return found.length > 0 && h("section", h("h2", title), found);
}

function facts(pairs) {
	const known = pairs.filter(([, value]) => value && value !== "–");
	return known.length > 0 && h("dl.facts", known.map(([term, value]) => h("div", h("dt", term), h("dd", value))));
}

function button(text, onclick, label) {
	return h("button", { type: "button", onclick, "aria-label": label }, text);
}

function toggle(text, on, change) {
	const made = button(text, () => {
		on = !on;
		made.setAttribute("aria-pressed", on);
		change(on);
	});
	made.setAttribute("aria-pressed", on);
	return made;
}

function choice(label, options, value, change) {
	return h("label.choice", h("span", label), h("select", { onchange: (event) => change(event.target.value) },
		options.map(([key, text]) => h("option", { value: key, selected: key === value }, clean(text, 60)))));
}

// A choice among things that have names.
function chooseNamed(label, things, value, change) {
	return things.length > 1 && choice(label, things.map((thing) => [thing.name, thing.name]), value, change);
}

function table(label, heads, rows) {
	return h("div.scroll", { tabindex: 0, role: "region", "aria-label": label }, h("table",
		h("thead", h("tr", heads.map((text) => h("th", { scope: "col" }, text)))),
		h("tbody", rows.map((row) => h("tr", row.map((cell) => h("td", cell)))))));
}
