// A layer: its channels as tiles, sorted and filtered.
"use strict";

app.pages.layer = { title: "Channels", when: () => app.run.layers.some((layer) => layer.layer), first: () => ["layer", app.run.layers.find((layer) => layer.layer).name], show: showLayer };

const SORTS = { channel: ["number", 1], sparsity: ["sparsity", -1], selectivity: ["selectivity", -1], maximum: ["largest activation", -1], excited: ["share of images that excite it", -1], percentile: ["percentile of its picture", -1], strongest: ["share of images where it leads", -1] };

async function showLayer([layerName], query, main) {
  const layer = layerOf(layerName);
  if (!layer || !layer.layer) return missing(main, `There are no channels of ${layerName}.`);
  const table = await load("layers/" + layer.file);
  const pictured = new Map(table.pictures.map((channel, i) => [channel, { order: i, status: table.status[i], percentile: table.percentile[i] }]));
  const cropped = new Map(table.crops.map((channel, i) => [channel, i]));
  const value = (channel, key) => (key === "channel" ? channel : key === "percentile" ? pictured.get(channel)?.percentile ?? null : key === "selectivity" ? table.selectivity?.[channel] ?? null : table.numbers[key]?.[channel] ?? null);
  const sorts = Object.entries(SORTS).filter(([key]) => key === "channel" || (key === "percentile" ? pictured.size : key === "selectivity" ? table.selectivity : table.numbers[key]));
  let sort = query.get("sort") || "channel", filter = query.get("show") || "all";
  const silent = (channel) => (table.numbers.peak_maximum?.[channel] ?? 1) <= 0;
  const filters = { all: ["all", () => true], live: ["alive", (c) => !silent(c) && pictured.get(c)?.status !== "dead"], silent: ["dead: no image excites it", (c) => silent(c) || pictured.get(c)?.status === "dead"] };
  if (pictured.size) Object.assign(filters, { pictures: ["with a picture", (c) => pictured.has(c)], stuck: ["stuck picture", (c) => pictured.get(c)?.status === "stuck"] });
  if (!filters[filter]) filter = "all";
  const grid = h("div", { class: "channels" }), count = h("span", { class: "quiet", role: "status" });
  const redraw = () => {
    const [, direction] = SORTS[sort] || SORTS.channel;
    const shown = Array.from({ length: table.count }, (_, channel) => channel).filter(filters[filter][1])
      .sort((a, b) => ((value(a, sort) ?? Infinity * direction) - (value(b, sort) ?? Infinity * direction)) * direction || a - b);
    count.textContent = `${show(shown.length)} of ${show(table.count)} channels`;
    grid.replaceChildren(...shown.map((channel) => channelTile(layer, table, channel, pictured.get(channel), cropped.get(channel), sort === "channel" ? null : [SORTS[sort][0], value(channel, sort)])));
    history.replaceState(null, "", `${address("layer", layerName)}?sort=${sort}&show=${filter}`);
  };
  add(main, [h("h1", {}, name(layerName)), h("div", { class: "row" },
    choice("Layer", app.run.layers.filter((found) => found.layer).map((found) => [found.name, found.name]), layerName, (chosen) => { location.hash = address("layer", chosen); }),
    choice("Sort by", sorts.map(([key, [text]]) => [key, text]), sort, (chosen) => { sort = chosen; redraw(); }),
    choice("Show", Object.entries(filters).map(([key, [text]]) => [key, text]), filter, (chosen) => { filter = chosen; redraw(); }), count,
    layer.map && link(["map", layerName], "Its map")), grid]);
  redraw();
}

function channelTile(layer, table, channel, picture, crop, sorted, side = 138) {
  const face = picture ? cut(`sheets/pictures/${layer.file}${picture.order >= 256 ? "-" + Math.floor(picture.order / 256) : ""}.jpg`, picture.order % 16, Math.floor((picture.order % 256) / 16), 16, side, `Picture of channel ${channel}`)
    : table.best[channel] !== null ? tile(table.best[channel], side, `Strongest image of channel ${channel}`) : h("span", { class: "tile empty", style: { width: side + "px", height: side + "px" } }, "silent");
  const strip = h("span", { class: "strip" });
  if (crop !== undefined) {
    for (let i = 0; i < 4; i++) {
      const order = 4 * crop + i;
      strip.append(cut(`sheets/crops/${layer.file}${order >= 256 ? "-" + Math.floor(order / 256) : ""}.jpg`, order % 16, Math.floor((order % 256) / 16), 16, side / 4, "crop"));
    }
  }
  const label = table.classes?.[channel], status = picture && picture.status !== "live" ? picture.status : null;
  return h("a", { class: "channel", style: { width: side + "px" }, href: address("channel", layer.name, channel) }, face, crop !== undefined && strip, h("span", { class: "name" }, h("b", {}, channel), status && h("em", {}, status), sorted && h("span", { class: "quiet" }, show(sorted[1]))),
    label !== null && label !== undefined && h("span", { class: "quiet" }, name(say(app.run.classes[label]), 22)));
}
