"use strict";
// The interactive view of a case. Nothing is fetched: library and volumes are gzipped base64 inside this file.
(() => {
  const text = (id) => document.getElementById(id)?.textContent.trim();
  let library = null, current = null, busy = false;

  async function unpack(id) {
    const bytes = Uint8Array.from(atob(text(id)), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  async function niivue() {
    if (!library) {
      const script = document.createElement("script");
      script.textContent = new TextDecoder().decode(await unpack("niivue"));
      document.head.append(script);
      library = globalThis.niivue;
    }
    return library;
  }

  // to the side of the screen: the patient's right (+x) is on the left of the screen
  const KEYS = {
    ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
  };

  const able = () => {
    const gl = document.createElement("canvas").getContext("webgl2");
    gl?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(gl) && "DecompressionStream" in globalThis;
  };

  const digits = (value) => (value === 0 ? "0" : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3));
  const ml = (value) => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

  const whole = (value) => value.toFixed(0).replace("-", "\u2212").replace(/^\u22120$/, "0");

  // above[k]: number of voxels whose code is larger than k, so that their score exceeds k · step
  function counts(buffer) {
    const above = new Array(256).fill(0);
    for (const code of new Uint8Array(buffer, 352)) above[code]++;
    for (let k = 255, sum = 0; k >= 0; k--) [above[k], sum] = [sum, sum + above[k]];
    return above;
  }

  function close() {
    if (!current) return;
    const { box, nv } = current;
    current = null;
    nv.cleanup();
    nv.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    box.querySelector(".stage").hidden = true;
    box.querySelector("canvas")?.remove();
    box.querySelector(".open").textContent = "Open the interactive view";
    box.querySelector(".open").setAttribute("aria-expanded", "false");
  }

  async function open(box) {
    const { NVImage, Niivue } = await niivue();
    const key = box.dataset.key;
    const [step, top, voxelMl] = ["step", "top", "voxelMl"].map((name) => Number(box.dataset[name]));
    const stage = box.querySelector(".stage"), slider = box.querySelector(".threshold");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-label", "Three linked planes and a 3-D rendering; click, arrow keys, Page Up and Page Down move the crosshair");
    canvas.setAttribute("role", "application");
    canvas.tabIndex = 0;
    box.querySelector(".canvas").append(canvas);
    stage.hidden = false;
    const nv = new Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.7, crosshairWidthUnit: "mm", show3Dcrosshair: true,
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 1, showAllOrientationMarkers: true,
      multiplanarLayout: 2, dragAndDropEnabled: false, isResizeCanvas: true, logLevel: "error", scrollRequiresFocus: true,
      loadingText: "",
    });
    current = { box, nv };
    box.nv = nv;
    await nv.attachToCanvas(canvas);
    nv.addColormap("truth", { R: [76, 76], G: [201, 201], B: [240, 240], A: [0, 255], I: [0, 255] });
    const colours = box.dataset.colours.split(",").map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    const [R, G, B] = [0, 1, 2].map((channel) => colours.map((colour) => colour[channel]));
    const I = colours.map((_, place) => 1 + Math.round((254 * place) / (colours.length - 1)));
    const first = (stop, list) => [stop, ...list]; // entry 0 is for values below cal_min: transparent
    nv.addColormap("scores", { R: first(0, R), G: first(0, G), B: first(0, B), A: first(0, colours.map(() => 255)), I: first(0, I) });
    const map = await unpack(`${key}-anomaly`);
    const above = counts(map);
    const add = async (name, buffer, options) =>
      nv.addVolume(await NVImage.loadFromUrl({ url: buffer, name: `${name}.nii`, trustCalMinMax: true, ...options }));
    const base = text(`${key}-scan`) ? "scan" : null;
    if (base) await add("scan", await unpack(`${key}-scan`), { colormap: "gray", cal_min: 0, cal_max: 255 });
    await add("anomaly", map, { colormap: "scores", opacity: base ? 0.9 : 1, cal_min: step / 4, cal_max: top });
    const anomaly = nv.volumes[nv.volumes.length - 1];
    const codes = anomaly.img.slice(); // the shown volume is made from it: code 0 lies below cal_min and is transparent
    if (text(`${key}-truth`)) {
      await add("truth", await unpack(`${key}-truth`), { colormap: "truth", opacity: 0.9, cal_min: 0.5, cal_max: 1 });
      nv.volumes[nv.volumes.length - 1].colormapType = 1;
    }
    nv.opts.multiplanarPadPixels = 14; // only when there is something to lay out
    nv.setSliceType(nv.sliceTypeMultiplanar);
    nv.setRenderAzimuthElevation(200, 15);

    let waiting = false;
    const show = () => {
      const k = Number(slider.value), value = k * step;
      box.querySelector(".value").textContent = digits(value);
      box.querySelector(".volume").textContent = ml(above[k] * voxelMl);
      slider.setAttribute("aria-valuetext", `${digits(value)}, ${ml(above[k] * voxelMl)} ml above`);
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (current?.nv !== nv) return;
        const cut = Number(slider.value);
        codes.forEach((code, place) => { anomaly.img[place] = code > cut ? code : 0; });
        nv.updateGLVolume();
      });
    };
    slider.oninput = show;
    box.querySelector(".reset").onclick = () => { slider.value = slider.defaultValue; show(); };
    const truth = box.querySelector(".truth-on");
    if (truth) truth.onchange = () => nv.setOpacity(nv.volumes.length - 1, truth.checked ? 0.9 : 0);
    const [nx, ny] = anomaly.dimsRAS.slice(1);
    canvas.onkeydown = (event) => {
      const way = KEYS[event.key];
      if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      nv.moveCrosshairInVox(...way);
    };
    nv.onLocationChange = ({ mm, vox }) => {
      const score = (codes[vox[0] + nx * (vox[1] + ny * vox[2])] - 0.5) * step;
      box.querySelector(".place").textContent =
        `x ${whole(mm[0])}, y ${whole(mm[1])}, z ${whole(mm[2])} mm · score ${score > 0 ? "about " + digits(score) : "0"}`;
    };
    const [x, y, z] = box.dataset.at.split(" ").map(Number);
    nv.scene.crosshairPos = nv.mm2frac([x, y, z]);
    if (truth) truth.onchange();
    show();
    nv.createOnLocationChange();
    box.querySelector(".open").textContent = "Close the interactive view";
    box.querySelector(".open").setAttribute("aria-expanded", "true");
    box.dataset.ready = "yes";
  }

  const boxes = document.querySelectorAll(".viewer");
  const works = boxes.length > 0 && able();
  for (const box of boxes) {
    const button = box.querySelector(".open"), note = box.querySelector(".unable");
    note.hidden = works;
    if (!works) {
      note.textContent = "The interactive view needs WebGL 2, which this browser does not support. The pictures above show the case.";
      continue;
    }
    button.hidden = false;
    button.addEventListener("click", async () => {
      if (busy) return;
      busy = true;
      const again = current?.box === box;
      close();
      button.disabled = true;
      try {
        if (!again) await open(box);
      } catch (error) {
        close();
        note.hidden = false;
        note.textContent = `The interactive view could not be opened (${error.message}). The pictures above show the case.`;
      }
      button.disabled = busy = false;
    });
  }
})();
