// The overview: what was run, on what, how it went, and the way to everything else.
"use strict";

app.pages.overview = { title: "Overview", first: () => [], show: showOverview };

async function showOverview(parts, query, main) {
  const run = app.run, mapped = run.layers.filter((layer) => layer.map);
  const hero = run.mosaics.find(([text]) => text.endsWith("-grid")) || run.mosaics[0];
  add(main, [h("h1", {}, name(run.network || "A network"), " on ", show(run.total), " images")]);
  if (run.total > run.images) add(main, [h("p", { class: "quiet" }, `${show(run.images)} of them are shown, evenly by class.`)]);
  const top = h("div", { class: "hero" });
  main.append(top);
  if (hero) top.append(link(["mosaic", hero[0]], await preview(hero, 1000)));
  else if (mapped.length) {
    const view = new MapView("Map of " + mapped[mapped.length - 1].name);
    top.append(view.box);
    leave(() => view.watch.disconnect());
    await view.open(mapped[mapped.length - 1]);
    view.clicked = () => { location.hash = address("map", mapped[mapped.length - 1].name); };
    await colourBy(view, run.labelled ? "label" : run.predicted ? "prediction" : "plain", h("div"));
  } else top.append(gallery(everyN(run.images, 48), 96));
  const total = Object.values(run.seconds).reduce((sum, value) => sum + value, 0);
  add(main, [
    facts([["images", show(run.total)], ["rejected", run.rejects ? h("a", { href: "#/rejects" }, show(run.rejects)) : "0"], ["classes", run.labelled ? show(run.labels) : null],
      ["layers", show(run.layers.length)], ["channel pictures", run.layers.reduce((sum, layer) => sum + layer.pictures, 0) || null], ["explained images", run.explained.length || null], ["time", total ? duration(total) : null]]),
    section("Layers", run.layers.length ? h("div", { class: "cards" }, run.layers.map(layerCard)) : null),
    section("Mosaics", await Promise.all(run.mosaics.filter((found) => found !== hero).map(async (found) => h("figure", { class: "small" }, link(["mosaic", found[0]], await preview(found, 480)), h("figcaption", {}, name(found[0])))))),
    section("Run", facts([["source", name(run.source)], ...Object.entries(run.seconds).map(([stage, seconds]) => [stage, duration(seconds)]), ...Object.entries(run.versions).map(([text, value]) => [text, name(value)])])),
  ]);
}

function duration(seconds) {
  return seconds < 90 ? show(seconds, 2) + " s" : seconds < 5400 ? show(seconds / 60, 2) + " min" : show(seconds / 3600, 2) + " h";
}

function everyN(total, count) {
  const number = Math.min(total, count);
  return Array.from({ length: number }, (_, i) => Math.floor((i * total) / number));
}

// The smallest level of a mosaic's pyramid that is one tile.
async function preview([text, file], most) {
  const found = await load("mosaics/" + file), longest = Math.max(found.width, found.height);
  const top = Math.ceil(Math.log2(longest));
  let level = top;
  while (longest / 2 ** (top - level) > found.tile) level--;
  const across = most > found.tile ? Math.min(top, level + 1) : level, scale = 2 ** (top - across), columns = Math.ceil(Math.ceil(found.width / scale) / found.tile), rows = Math.ceil(Math.ceil(found.height / scale) / found.tile);
  const grid = h("span", { class: "preview", role: "img", "aria-label": "Mosaic " + clean(text), style: { gridTemplateColumns: Array.from({ length: columns }, (_, x) => Math.min(found.tile, found.width / scale - x * found.tile) + "fr").join(" ") } });
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) grid.append(h("img", { alt: "", src: `mosaic/${file}_files/${across}/${x}_${y}.jpg` }));
  return grid;
}

function layerCard(layer) {
  const ways = [layer.map && link(["map", layer.name], "Map"), layer.layer && link(["layer", layer.name], "Channels"), layer.pictures > 0 && h("span", { class: "quiet" }, `${show(layer.pictures)} pictures`)].filter(Boolean);
  return h("article", { class: "card" }, h("h3", {}, name(layer.name)), h("p", {}, ways.flatMap((way, i) => (i ? [" · ", way] : [way]))), layerQuality(layer));
}
