// Addresses: #/page/part/part?query. Every page is an address that can be sent.
"use strict";

const leaving = [];

// Call this when the shown page is left.
function leave(call) {
  leaving.push(call);
}

function missing(main, text) {
  add(main, [h("h1", {}, "Not in this report"), h("p", {}, clean(text)), h("p", {}, h("a", { href: "#/" }, "To the overview"))]);
}

function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map((part) => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  return { page: parts[0] || "overview", parts: parts.slice(1), query: new URLSearchParams(query || "") };
}

let showing = 0;

async function route() {
  const turn = ++showing, main = document.getElementById("main"), { page, parts, query } = parse(location.hash);
  while (leaving.length) leaving.pop()();
  document.getElementById("failed").hidden = true;
  main.replaceChildren();
  main.className = "page-" + (app.pages[page] ? page : "missing");
  for (const entry of document.querySelectorAll("#nav a")) {
    if (entry.dataset.page === page) entry.setAttribute("aria-current", "page");
    else entry.removeAttribute("aria-current");
  }
  const found = Object.hasOwn(app.pages, page) ? app.pages[page] : null, sheet = document.createElement("div");
  sheet.className = "page";
  main.append(sheet);
  document.title = clean([...parts.slice(0, page === "image" ? 1 : 2), found ? found.title : "Report", app.run.network].filter(Boolean).join(" · "), 120);
  scrollTo(0, 0);
  try {
    if (found) await found.show(parts, query, sheet);
    else missing(sheet, `There is no page ${page}.`);
  } catch (error) {
    if (turn !== showing) return;
    add(sheet, [h("p", { role: "alert" }, "This page could not be shown: " + error.message)]);
  }
  if (turn === showing) document.body.dataset.shown = location.hash || "#/";
}

function showTop() {
  document.getElementById("brand").textContent = clean(app.run.network || "report", 40);
  const nav = document.getElementById("nav");
  for (const [key, page] of Object.entries(app.pages)) {
    if (!page.first || (page.when && !page.when())) continue;
    const entry = h("a", { href: address(...page.first()) }, page.title);
    entry.dataset.page = page.page || key;
    nav.append(entry);
  }
}

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName), query = document.getElementById("query");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    query.focus();
    query.select();
  } else if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (app.selection && app.view && app.view.box.isConnected) app.view.reselect(null);
    else if (app.selection) { select(null); route(); }
  } else if (!typing && (event.key === "ArrowLeft" || event.key === "ArrowRight") && event.target.getAttribute?.("role") !== "application") {
    const next = document.querySelector(event.key === "ArrowLeft" ? "a[rel=prev]" : "a[rel=next]");
    const tiles = event.target.parentElement?.classList.contains("gallery");
    if (tiles) (event.key === "ArrowLeft" ? event.target.previousElementSibling : event.target.nextElementSibling)?.focus();
    else if (next) next.click();
  }
});

document.getElementById("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = document.getElementById("query").value.trim();
  if (text) location.hash = `#/images?q=${encodeURIComponent(text)}`;
});

load("run").then((run) => {
  prepare(run);
  showTop();
  addEventListener("hashchange", route);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", route);
  route();
}, () => {});
