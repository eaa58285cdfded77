// What the audit found: images side by side, each a way to its page.
"use strict";

app.pages.audit = { title: "Audit", when: () => run.audit > 0, first: () => ["audit"], show: showAudit };

async function showAudit(parts, query, main) {
	const { layer, groups } = await load("audit");
	add(main, h("h1", "Audit"), quiet("By the features of ", name(layer), ". The first of each kind are shown."),
		groups.map(({ title, count, about, rows }) => section(`${title}: ${show(count)}`, quiet(about), h("div.seen", rows.map(({ images, text }) => h("div.pair", gallery(images, images.length > 1 ? 96 : 128),
			h("span.quiet", text.map(([term, value]) => h("span", term, " ", name(say(value), 30))))))))));
}
