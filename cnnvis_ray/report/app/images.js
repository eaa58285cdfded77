// All images, what a search finds of keys, classes and channels, and images that could not be used.
"use strict";

app.pages.images = { title: "Images", first: () => ["images"], show: showImages };

const PAGE = 240;
const MOST_HITS = 50000; // further ones cost more than 50 ms and help nobody

async function showImages(parts, query, main) {
	const text = query.get("q") || "", everything = Array.from({ length: run.images }, (_, i) => i);
	document.getElementById("query").value = text;
	if (query.get("selected")) return add(main, h("h1", "Selected images"), paged(selectedImages()));
	if (!text) {
		const explained = section("Explained by heat maps", gallery(run.explained.slice(0, 48)));
		return add(main, h("h1", "Images"), explained, explained && h("h2", `All ${show(run.images)}`), paged(everything));
	}
	const wanted = text.toLowerCase(), classes = run.classes.filter((found) => `${found}\n${say(found)}`.toLowerCase().includes(wanted)), channel = findChannel(text);
	add(main, h("h1", "Search: ", name(text, 80)), channel && h("p", link(channel, channel.slice(1).join(" / "))),
		section("Classes", classes.length > 0 && h("p.words", classes.slice(0, 40).map((found) => classLink(found)))));
	const images = await search(text);
	add(main, h("h2", images.length < MOST_HITS ? `${show(images.length)} keys` : `The first ${show(MOST_HITS)} keys`), showOnMap("Show them on the map", images), paged(images));
}

function paged(images) {
	const list = h("div"), more = button("", () => step());
	const step = () => {
		const shown = list.querySelectorAll("a").length;
		add(list, gallery(images.slice(shown, shown + PAGE)));
		more.textContent = `More: ${show(images.length - shown - PAGE)} are left`;
		more.hidden = shown + PAGE >= images.length;
	};
	step();
	return [list, more];
}

// "features.12/40", "features.12 40" or a layer alone.
function findChannel(text) {
	const [, layerName, channel] = text.match(/^(\S+?)(?:[\s/:]+(\d+))?$/) || [];
	return layerOf(layerName)?.layer && (channel ? ["channel", layerName, channel] : ["layer", layerName]);
}

// Keys are read once, a text per work unit, in blocks that keep the page alive.
async function readKeys() {
	while (app.keys.length < run.units.length) {
		const names = app.starts.slice(app.keys.length, app.keys.length + 16).map((start) => "keys/" + unitOf(start).name);
		for (const keys of await Promise.all(names.map(load))) app.keys.push(keys.map((key) => key.replace(/\n/g, " ")).join("\n").toLowerCase());
	}
	return app.keys;
}

async function search(text) {
	const keys = await readKeys(), start = performance.now(), wanted = text.toLowerCase(), images = [];
	for (let unit = 0; unit < keys.length && images.length < MOST_HITS; unit++) {
		const joined = keys[unit];
		let row = app.starts[unit], from = 0, at, line;
		while ((at = joined.indexOf(wanted, from)) >= 0) {
			for (; (line = joined.indexOf("\n", from)) >= 0 && line < at; from = line + 1) row++;
			images.push(row++);
			if (line < 0) break;
			from = line + 1;
		}
	}
	app.searchMilliseconds = performance.now() - start;
	return images.slice(0, MOST_HITS);
}

async function findKey(key) {
	const keys = key ? await readKeys() : [], wanted = key.replace(/\n/g, " ").toLowerCase();
	for (let unit = 0; unit < keys.length; unit++) {
		const row = keys[unit].includes(wanted) ? (await load("keys/" + unitOf(app.starts[unit]).name)).indexOf(key) : -1;
		if (row >= 0) return app.starts[unit] + row;
	}
	return -1;
}

app.pages.rejects = { title: "Rejects", when: () => run.rejects > 0, first: () => ["rejects"], show: showRejects };

async function showRejects(parts, query, main) {
	if (!run.rejects) return add(main, h("h1", "Every image could be used"));
	const { key, stage, error } = await load("rejects");
	add(main, h("h1", `${show(run.rejects)} images could not be used`), table("Rejects", ["image", "stage", "reason"], key.map((text, i) => [name(text, 200), stage[i], name(error[i], 300)])),
		run.rejects > key.length && quiet(`The first ${show(key.length)} of them.`));
}
