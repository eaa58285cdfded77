// Addresses: #/page/part/part?query. Every page is an address that can be sent.
"use strict";

const leaving = [];
let turns = 0;

// Call this when the shown page is left.
function leave(call) {
	leaving.push(call);
}

function missing(main, text) {
	add(main, h("h1", "Not in this report"), h("p", text), h("p", link([""], "To the overview")));
}

function parse(hash) {
	const [path, query] = hash.replace(/^#\/?/, "").split("?");
	const [page, ...parts] = path.split("/").map((part) => {
		try { return decodeURIComponent(part); } catch { return part; }
	});
	return { page: page || "overview", parts, query: new URLSearchParams(query || "") };
}

async function route() {
	const turn = ++turns, { page, parts, query } = parse(location.hash);
	const found = Object.hasOwn(app.pages, page) && app.pages[page], main = document.getElementById("main"), sheet = h("div.page");
	while (leaving.length) leaving.pop()();
	document.getElementById("failed").hidden = true;
	main.replaceChildren(sheet);
	main.className = "page-" + (found ? page : "missing");
	for (const entry of document.querySelectorAll("#nav a")) {
		if (entry.dataset.page === (found.of || page)) entry.setAttribute("aria-current", "page");
		else entry.removeAttribute("aria-current");
	}
	const title = [...parts.slice(0, page === "image" ? 1 : 2), found ? found.title : "Report", run.network];
	document.title = clean(title.filter(Boolean).join(" · "), 120);
	scrollTo(0, 0);
	try {
		if (found) await found.show(parts, query, sheet);
		else missing(sheet, `There is no page ${page}.`);
	} catch (error) {
		if (turn === turns) sheet.append(h("p", { role: "alert" }, "This page could not be shown: " + error.message));
	}
	if (turn === turns) document.body.dataset.shown = location.hash || "#/";
}

function showTop() {
	document.getElementById("brand").textContent = clean(run.network || "report", 40);
	for (const [key, page] of Object.entries(app.pages)) {
		if (!page.first || (page.when && !page.when())) continue;
		const entry = link(page.first(), page.title);
		entry.dataset.page = key;
		document.getElementById("nav").append(entry);
	}
}

document.addEventListener("keydown", (event) => {
	const { key, target } = event, typing = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
	if (typing && key === "Escape") target.blur();
	if (typing) return;
	if (key === "/") {
		event.preventDefault();
		document.getElementById("query").select();
	} else if (key === "Escape" && app.selection) {
		if (app.view?.box.isConnected) return app.view.reselect(null);
		select(null);
		route();
	} else if (/^Arrow(Left|Right)$/.test(key) && target.getAttribute?.("role") !== "application") {
		const back = key === "ArrowLeft";
		if (target.closest?.(".gallery")) target[back ? "previousElementSibling" : "nextElementSibling"]?.focus();
		else document.querySelector(`a[rel=${back ? "prev" : "next"}]`)?.click();
	}
});

document.getElementById("find").addEventListener("submit", (event) => {
	event.preventDefault();
	const text = document.getElementById("query").value.trim();
	if (text) location.hash = "#/images?q=" + encodeURIComponent(text);
});

load("run").then((found) => {
	prepare(found);
	showTop();
	addEventListener("hashchange", route);
	matchMedia("(prefers-color-scheme: dark)").addEventListener("change", route);
	route();
}, () => {});
