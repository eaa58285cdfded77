// Images that could not be used, and why.
"use strict";

app.pages.rejects = { title: "Rejects", when: () => app.run.rejects > 0, first: () => ["rejects"], show: showRejects };

async function showRejects(parts, query, main) {
  add(main, [h("h1", {}, app.run.rejects ? `${show(app.run.rejects)} images could not be used` : "Every image could be used")]);
  if (!app.run.rejects) return;
  const rows = await load("rejects");
  add(main, [h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Rejects" }, h("table", {}, h("thead", {}, h("tr", {}, ["image", "stage", "reason"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows.key.map((key, i) => h("tr", {}, h("td", {}, name(key, 200)), h("td", {}, rows.stage[i]), h("td", {}, name(rows.error[i], 300))))))),
  app.run.rejects > rows.key.length && h("p", { class: "quiet" }, `The first ${show(rows.key.length)} of them.`)]);
}
