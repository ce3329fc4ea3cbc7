// A worker that reads barcodes from pictures: ImageData in, a list of texts out.
importScripts("zxing_reader.js");
const OPTIONS = {
  formats: ["QRCode", "MicroQRCode", "DataMatrix", "Aztec", "PDF417", "Code128", "EAN13"],
  tryHarder: true, tryInvert: true, maxNumberOfSymbols: 4, textMode: "Plain",
};

ZXingWASM.prepareZXingModule({ overrides: { locateFile: () => "zxing_reader.wasm" }, fireImmediately: true }).then(
  () => postMessage("ready"),
  () => postMessage("failed"),
);

onmessage = async (event) => {
  const found = await ZXingWASM.readBarcodes(event.data, OPTIONS).catch(() => []);
  postMessage(found.filter((one) => one.isValid).map((one) => one.text));
};
