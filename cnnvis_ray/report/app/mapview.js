// A map on a page: two canvases, moved by pointer, wheel and keys.
"use strict";

class MapView {
  constructor(label) {
    this.points = h("canvas", { class: "points", "aria-hidden": "true" });
    this.over = h("canvas", { class: "over", "aria-hidden": "true" });
    this.box = h("div", { class: "map", tabindex: 0, role: "application", "aria-label": label + ". Arrow keys move, plus and minus zoom, Enter opens the image in the middle." }, this.points, this.over);
    this.view = { x: 32768, y: 32768, zoom: 1 };
    this.fingers = new Map();
    this.lasso = null;
    this.listen();
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.box);
  }

  async open(layer) {
    const value = await load("map/" + layer.file);
    const xy = unpack(value.xy, Uint16Array);
    const data = this.data || { pictures: true, words: true };
    this.data = Object.assign(data, { file: layer.file, layer: layer.name, xy, count: value.count, ids: value.ids ? unpack(value.ids, Uint32Array) : null,
      regions: value.regions, columns: value.columns, lod: value.lod.map(([cells, points]) => [cells, unpack(points, Uint32Array)]) });
    paint(data, new Uint8Array(value.count), "plain");
    paintSelection(data);
    this.resize();
  }

  imageOf(point) { return this.data.ids ? this.data.ids[point] : point; }

  pointOf(image) {
    if (!this.data.ids) return image < this.data.count ? image : -1;
    return this.data.ids.indexOf(image);
  }

  resize() {
    const many = this.data && this.data.count > 200000;
    this.ratio = many ? 1 : Math.min(2, devicePixelRatio || 1);
    for (const canvas of [this.points, this.over]) {
      canvas.width = Math.max(1, Math.round(this.box.clientWidth * this.ratio));
      canvas.height = Math.max(1, Math.round(this.box.clientHeight * this.ratio));
    }
    this.draw();
  }

  // The view in pixels of a canvas.
  frame(width = this.points.width, height = this.points.height, ratio = this.ratio) {
    const scale = (this.view.zoom * 0.9 * Math.min(width, height)) / 65536;
    return { scale, width, height, ratio, zoom: this.view.zoom, left: this.view.x - width / 2 / scale, top: this.view.y - height / 2 / scale };
  }

  draw() {
    if (this.asked || !this.data) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.drawNow();
    });
  }

  drawNow() {
    const start = performance.now(), frame = this.frame();
    drawPoints(this.points, this.data, frame);
    drawPictures(this.over, this.data, frame, () => this.draw());
    drawWords(this.over, this.data, frame);
    this.drawMarks(frame);
    this.milliseconds = performance.now() - start;
    this.drawn?.();
  }

  drawMarks(frame) {
    const context = this.over.getContext("2d");
    context.strokeStyle = dark() ? "#fff" : "#000";
    context.lineWidth = 2 * frame.ratio;
    const point = app.focus === null ? -1 : this.pointOf(app.focus);
    if (point >= 0) {
      context.beginPath();
      context.arc((this.data.xy[2 * point] - frame.left) * frame.scale, (this.data.xy[2 * point + 1] - frame.top) * frame.scale, 30 * frame.ratio, 0, 7);
      context.stroke();
    }
    if (!this.path || this.path.length < 2) return;
    context.setLineDash([6, 5]);
    context.beginPath();
    for (const [x, y] of this.path) context.lineTo((x - frame.left) * frame.scale, (y - frame.top) * frame.scale);
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }

  // Map steps under a pointer.
  at(event) {
    const box = this.box.getBoundingClientRect(), frame = this.frame();
    return [frame.left + ((event.clientX - box.left) * this.ratio) / frame.scale, frame.top + ((event.clientY - box.top) * this.ratio) / frame.scale];
  }

  zoomBy(factor, [x, y] = [this.view.x, this.view.y]) {
    const zoom = Math.min(600, Math.max(0.7, this.view.zoom * factor)), ratio = this.view.zoom / zoom;
    this.move(x + (this.view.x - x) * ratio, y + (this.view.y - y) * ratio, zoom);
  }

  move(x, y, zoom = this.view.zoom) {
    this.view = { x: Math.min(65536, Math.max(0, x)), y: Math.min(65536, Math.max(0, y)), zoom };
    this.moved?.();
    this.draw();
  }

  // The image under a pointer: the topmost picture, else the nearest point within 14 pixels.
  pick([x, y]) {
    const frame = this.frame(), px = (x - frame.left) * frame.scale, py = (y - frame.top) * frame.scale;
    for (const [point, left, top, side] of (this.data.boxes || []).slice().reverse()) {
      if (px >= left && py >= top && px < left + side && py < top + side) return this.imageOf(point);
    }
    let best = -1, nearest = (14 * frame.ratio / frame.scale) ** 2;
    const { xy } = this.data;
    for (let i = 0; i < this.data.count; i++) {
      const distance = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
      if (distance < nearest) [best, nearest] = [i, distance];
    }
    return best < 0 ? null : this.imageOf(best);
  }

  listen() {
    const box = this.box;
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), this.at(event));
    }, { passive: false });
    box.addEventListener("pointerdown", (event) => this.press(event));
    box.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) box.addEventListener(kind, (event) => this.release(event));
    box.addEventListener("keydown", (event) => this.key(event));
  }

  press(event) {
    if (!this.data || event.button > 0) return;
    this.box.setPointerCapture?.(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.still = true;
    this.path = this.lasso || event.shiftKey ? [this.at(event)] : null;
  }

  drag(event) {
    if (!this.data) return;
    const before = this.fingers.get(event.pointerId);
    if (!before) return this.hover?.(event);
    const now = [event.clientX, event.clientY];
    if (Math.hypot(now[0] - before[0], now[1] - before[1]) < (this.still ? 4 : 0.5)) return;
    this.still = false;
    if (this.path) {
      this.path.push(this.at(event));
      this.fingers.set(event.pointerId, now);
      return this.draw();
    }
    const frame = this.frame(), others = [...this.fingers].filter(([id]) => id !== event.pointerId);
    if (others.length) {
      const [x, y] = others[0][1];
      this.zoomBy(Math.hypot(now[0] - x, now[1] - y) / Math.max(1, Math.hypot(before[0] - x, before[1] - y)), this.at({ clientX: x, clientY: y }));
    } else this.move(this.view.x - ((now[0] - before[0]) * this.ratio) / frame.scale, this.view.y - ((now[1] - before[1]) * this.ratio) / frame.scale);
    this.fingers.set(event.pointerId, now);
  }

  release(event) {
    if (!this.fingers.delete(event.pointerId)) return;
    const path = this.path;
    this.path = null;
    if (path && path.length > 2) return this.selected?.(inside(this.data, path, (point) => this.imageOf(point)));
    if (this.still && event.type === "pointerup") this.clicked?.(this.pick(this.at(event)));
    this.draw();
  }

  key(event) {
    const step = 6000 / this.view.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) this.move(this.view.x + moves[event.key][0], this.view.y + moves[event.key][1]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.5);
    else if (event.key === "-") this.zoomBy(1 / 1.5);
    else if (event.key === "0") this.move(32768, 32768, 1);
    else if (event.key === "Enter") this.clicked?.(this.pick([this.view.x, this.view.y]));
    else return;
    event.preventDefault();
  }
}

// The images inside a closed path, by the path's pixels on a canvas of its own.
function inside(data, path, imageOf) {
  const side = 1024, xs = path.map(([x]) => x), ys = path.map(([, y]) => y);
  const left = Math.min(...xs), top = Math.min(...ys), wide = Math.max(...xs) - left || 1, tall = Math.max(...ys) - top || 1;
  const context = h("canvas", { width: side, height: side }).getContext("2d");
  context.beginPath();
  for (const [x, y] of path) context.lineTo(((x - left) / wide) * side, ((y - top) / tall) * side);
  context.fill();
  const pixels = context.getImageData(0, 0, side, side).data, found = [];
  for (let i = 0; i < data.count; i++) {
    const x = Math.floor(((data.xy[2 * i] - left) / wide) * side), y = Math.floor(((data.xy[2 * i + 1] - top) / tall) * side);
    if (x >= 0 && y >= 0 && x < side && y < side && pixels[4 * (y * side + x) + 3] > 127) found.push(imageOf(i));
  }
  return found;
}

function select(images) {
  app.selection = null;
  if (!images || !images.length) return;
  app.selection = new Uint8Array(app.run.images);
  for (const image of images) app.selection[image] = 1;
}

function selectedImages() {
  const found = [];
  if (app.selection) for (let i = 0; i < app.selection.length; i++) if (app.selection[i]) found.push(i);
  return found;
}
