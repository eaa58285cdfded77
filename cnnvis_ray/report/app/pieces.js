// Pieces: data files are classic scripts that call piece(name, value), since fetch fails on file://.
"use strict";

const pieces = { waiting: new Map(), loaded: new Map(), asked: 0, arrived: 0 };

function piece(name, value) {
  pieces.arriving = [name, value];
}

// Load a data file once; resolves to its value, rejects with its name.
function load(name) {
  if (pieces.loaded.has(name)) return Promise.resolve(pieces.loaded.get(name));
  if (pieces.waiting.has(name)) return pieces.waiting.get(name);
  const promise = new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "data/" + name.split("/").map(encodeURIComponent).join("/") + ".js";
    script.onload = () => {
      const [found, value] = pieces.arriving || [];
      pieces.arriving = null;
      script.remove();
      if (found !== name) return fail(name, reject);
      keepPiece(name, value);
      resolve(value);
    };
    script.onerror = () => fail(name, reject);
    document.head.append(script);
  });
  pieces.waiting.set(name, promise);
  pieces.asked += 1;
  showProgress();
  const settle = () => {
    pieces.waiting.delete(name);
    pieces.arrived += 1;
    showProgress();
  };
  promise.then(settle, settle);
  return promise;
}

// Details of visited pages go after some hundred pieces; what every page reads stays.
function keepPiece(name, value) {
  pieces.loaded.set(name, value);
  if (pieces.loaded.size < 600) return;
  for (const old of pieces.loaded.keys()) {
    if (/^(channels|heat|strongest|neighbours|images)\//.test(old)) {
      pieces.loaded.delete(old);
      return;
    }
  }
}

function fail(name, reject) {
  const line = document.getElementById("failed");
  line.textContent = `data/${name}.js did not load. Write the report again, or copy its whole folder.`;
  line.hidden = false;
  reject(new Error(`data/${name}.js did not load`));
}

function showProgress() {
  const bar = document.getElementById("bar");
  const busy = pieces.asked > pieces.arrived;
  if (!busy) pieces.asked = pieces.arrived = 0;
  const share = busy ? Math.round((100 * pieces.arrived) / pieces.asked) : 100;
  bar.hidden = !busy;
  bar.setAttribute("aria-valuenow", share);
  bar.firstElementChild.style.width = Math.max(8, share) + "%";
}

// Decode base64 of a little-endian array.
function unpack(text, Kind) {
  if (!text) return new Kind(0);
  let bytes;
  if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
  else {
    const raw = atob(text);
    bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  }
  return new Kind(bytes.buffer, bytes.byteOffset, bytes.byteLength / Kind.BYTES_PER_ELEMENT);
}
