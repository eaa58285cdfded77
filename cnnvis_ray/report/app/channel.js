// A channel: what it wants to see, what it saw, and the numbers.
"use strict";

app.pages.channel = { title: "Channel", show: showChannel };

async function showChannel([layerName, number], query, main) {
  const layer = layerOf(layerName), channel = Number(number);
  if (!layer || !layer.layer) return missing(main, `There are no channels of ${layerName}.`);
  const table = await load("layers/" + layer.file);
  if (!(channel >= 0 && channel < table.count && Number.isInteger(channel))) return missing(main, `${layerName} has channels 0 to ${table.count - 1}.`);
  const detail = (await load(`channels/${layer.file}/${String(Math.floor(channel / 16)).padStart(4, "0")}`))[channel % 16];
  const picture = detail.picture, numbers = table.numbers;
  add(main, [h("p", { class: "trail" }, link(["layer", layerName], name(layerName)), steps("channel", layerName, channel, table.count)), h("h1", {}, name(layerName), " / ", channel)]);
  const facing = h("div", { class: "facing" });
  if (picture) {
    facing.append(h("figure", {}, h("img", { class: "picture", alt: `What channel ${channel} of ${layerName} wants to see`, src: "data:image/jpeg;base64," + picture.jpeg }),
      h("figcaption", {}, picture.status === "live" ? "Found by maximization: what excites it most." : `Maximization: ${picture.status}.`, picture.note ? " " + clean(picture.note) : "")));
  }
  facing.append(h("div", {}, facts([
    ["picture", picture && show(picture.activation)], ["above images", picture && picture.percentile !== null ? percent(picture.percentile / 100) : null], ["best image", picture && picture.best !== null ? show(picture.best) : null],
    ["mean", show(numbers.mean?.[channel])], ["largest place", show(numbers.peak_maximum?.[channel])], ["excited by", numbers.excited ? percent(numbers.excited[channel]) : null],
    ["sparsity", show(numbers.sparsity?.[channel], 2)], ["selectivity", show(table.selectivity?.[channel], 2)], ["leads in", numbers.strongest ? percent(numbers.strongest[channel]) : null]]),
    picture && picture.curve.length > 1 && h("div", {}, h("h2", {}, "Curve of the picture"), curve(picture.curve))));
  main.append(facing);
  add(main, [
    section("What excites it", await seen(detail)),
    h("div", { class: "columns" },
      section("Images by their largest activation", histogram(detail.bars, "activation, log scale")),
      section("Classes", detail.classes?.length ? [ranks(detail.classes.map(([index, score]) => [link(["class", app.run.classes[index]], name(say(app.run.classes[index]), 60)), score]), (value) => show(value, 2)), h("p", { class: "quiet" }, "Spreads above the channel's mean.")] : null)),
    section("Channels that answer alike", detail.similar?.length ? neighbours(layer, table, detail.similar, (value) => value.toFixed(2)) : null),
    section("Strongest inputs", inputs(detail)),
  ]);
}

function steps(page, layerName, channel, count) {
  const to = (other, rel, text) => (other < 0 || other >= count ? null : h("a", { href: address(page, layerName, other), rel }, text));
  return h("span", { class: "steps" }, to(channel - 1, "prev", "← " + (channel - 1)), to(channel + 1, "next", channel + 1 + " →"));
}

// Crops beside the whole image with the box of what the neuron sees; else images with the place.
async function seen(detail) {
  const list = h("div", { class: "seen" });
  const shown = detail.crops.length ? detail.crops : detail.exemplars.map(([image, value, x, y]) => ({ image, value, x, y }));
  for (const found of shown) {
    const image = await imageOf(found.image), frame = whole(image, 148), box = inputBox(image);
    if (found.box && !found.whole) framed(frame, found.box, "box");
    else if (found.x !== undefined && found.x !== null) {
      const x = box[0] + found.x * (box[2] - box[0]), y = box[1] + found.y * (box[3] - box[1]);
      framed(frame, [x, y, x, y], "spot");
    }
    list.append(h("a", { href: imageAddress(found.image, image.key), class: "pair", title: clean(image.key) },
      found.jpeg && h("img", { class: "crop", alt: found.whole ? "It sees the whole image" : "What the neuron sees", src: "data:image/jpeg;base64," + found.jpeg }), frame,
      h("span", { class: "quiet" }, show(found.value), image.label === null ? null : [" · ", name(say(image.label), 20)])));
  }
  return shown.length ? list : null;
}

function neighbours(layer, table, rows, text) {
  const order = new Map(table.pictures.map((channel, i) => [channel, { order: i, status: table.status[i], percentile: table.percentile[i] }]));
  const cropped = new Map(table.crops.map((channel, i) => [channel, i]));
  return h("div", { class: "channels" }, rows.map(([other, value]) => {
    const entry = channelTile(layer, { ...table, classes: null }, other, order.get(other), cropped.get(other), null, 112);
    entry.querySelector(".name").append(h("span", { class: "quiet" }, text(value)));
    return entry;
  }));
}

function inputs(detail) {
  if (!detail.inputs) return null;
  const [before, rows] = detail.inputs, layer = layerOf(before);
  return ranks(rows.map(([other, norm]) => [layer && layer.layer ? link(["channel", before, other], name(before), " / ", other) : h("span", {}, name(before), " / ", other), norm]), (value) => show(value, 2));
}
