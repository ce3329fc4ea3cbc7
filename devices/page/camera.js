// The device's camera as a scanner: the browser's own detector where there is one, else zxing as WebAssembly.
const LOOK_MS = 110; // some nine looks a second: a phone stays cool, and nobody notices
const WIDTH_MAX = 1024; // pixels; a code on a phone's screen is found in fewer
const OWN_FORMATS = ["qr_code", "data_matrix", "code_128", "aztec", "pdf417", "ean_13"];

export class Camera {
  constructor(video, onCode, onEnd) { // onEnd(error): it has stopped by itself; null: the device is gone
    this.video = video;
    this.onCode = onCode;
    this.onEnd = onEnd;
    this.stream = null;
    this.look = null;
  }

  get on() {
    return this.stream !== null;
  }

  // Throws an Error whose name is a key of the page's words.
  async start() {
    if (!window.isSecureContext) throw fault("cameraInsecure");
    if (!navigator.mediaDevices?.getUserMedia) throw fault("cameraNone");
    const wanted = { facingMode: { ideal: "environment" }, width: { ideal: 1280 }, height: { ideal: 720 } };
    this.stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    try {
      this.look = await reader();
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.stop();
      throw error;
    }
    this.stream.getVideoTracks()[0].addEventListener("ended", () => this.#end(null));
    this.lock = await navigator.wakeLock?.request("screen").catch(() => null);
    this.#next();
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.lock?.release();
    this.stream = this.lock = this.video.srcObject = null;
  }

  #end(error) {
    this.stop();
    this.onEnd(error);
  }

  #next() {
    setTimeout(async () => {
      if (!this.on) return;
      try {
        if (this.video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && !document.hidden) {
          for (const code of await this.look(this.video)) this.onCode(code);
        }
      } catch (error) {
        return void this.#end(error); // better told than a camera that seems to look
      }
      this.#next();
    }, LOOK_MS);
  }
}

function fault(name) {
  const error = new Error(name);
  error.name = name;
  return error;
}

let made = null; // one reader for the page's life

function reader() {
  made ??= ownReader().then((own) => own ?? wasmReader());
  made.catch(() => (made = null));
  return made;
}

async function ownReader() {
  const has = (await window.BarcodeDetector?.getSupportedFormats().catch(() => [])) ?? [];
  const formats = OWN_FORMATS.filter((format) => has.includes(format));
  if (!formats.includes("qr_code")) return null;
  const detector = new BarcodeDetector({ formats });
  return async (video) => (await detector.detect(video).catch(() => [])).map((found) => found.rawValue);
}

function wasmReader() {
  const worker = new Worker("decoder.js");
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const next = () => new Promise((done) => (worker.onmessage = (event) => done(event.data)));
  return new Promise((ready, failed) => {
    worker.onerror = () => failed(fault("decoderFault"));
    worker.onmessage = (event) => (event.data === "ready" ? ready(look) : failed(fault("decoderFault")));
  });

  async function look(video) {
    const scale = Math.min(1, WIDTH_MAX / video.videoWidth);
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const picture = context.getImageData(0, 0, canvas.width, canvas.height);
    const answer = next();
    worker.postMessage(picture, [picture.data.buffer]);
    return answer;
  }
}
