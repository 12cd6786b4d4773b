// Graphs of whole texts, and the one that reads block by block in JavaScript, against the folder's golden vectors.
// node check.mjs MODEL_FOLDER

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Lam } from "./lam.mjs";

const TOLERANCE = 1e-4; // largest difference of a number of a unit vector
const folder = process.argv[2];
const { golden } = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8"));

for (const runtime of ["onnxruntime-node", "onnxruntime-web"]) {
  const ort = await import(runtime);
  for (const file of ["onnx/model.onnx", "onnx/model_portable.onnx", "onnx/step_portable.onnx"]) {
    try {
      const lam = await Lam.load(ort, folder, file);
      let difference = 0;
      for (const { text, vector } of golden) {
        const found = await lam.encode(text);
        vector.forEach((x, i) => (difference = Math.max(difference, Math.abs(x - found[i]))));
      }
      const right = difference <= TOLERANCE; // a NaN is not
      console.log(`${runtime} ${file}: ${golden.length} texts ${right ? "within" : "WRONG by"} ${difference.toExponential(1)}`);
      if (!right) process.exitCode = 1;
    } catch (error) {
      console.log(`${runtime} ${file}: does not run: ${error.message}`);
      process.exitCode = 1;
    }
  }
}
