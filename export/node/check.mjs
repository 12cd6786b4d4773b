// Graphs of whole texts, and the one that reads block by block in JavaScript, against the folder's golden vectors.
// node check.mjs MODEL_FOLDER [PASSAGES.json]: the file has a document's title and passages, and their vectors.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Lam } from "./lam.mjs";

const TOLERANCE = 1e-4; // largest difference of a number of a unit vector
const folder = process.argv[2];
const passages = process.argv[3] && JSON.parse(await readFile(process.argv[3], "utf8"));
const apart = (one, other) => one.reduce((most, x, i) => Math.max(most, Math.abs(x - other[i])), 0);
const { golden } = JSON.parse(await readFile(join(folder, "manifest.json"), "utf8"));

for (const runtime of ["onnxruntime-node", "onnxruntime-web"]) {
  const ort = await import(runtime);
  for (const file of ["onnx/model.onnx", "onnx/model_portable.onnx", "onnx/step_portable.onnx"]) {
    try {
      const lam = await Lam.load(ort, folder, file);
      let difference = 0;
      for (const { text, vector } of golden) {
        difference = Math.max(difference, apart(vector, await lam.encode(text)));
      }
      if (passages && file === "onnx/step_portable.onnx") {
        const found = await lam.encodePassages(passages.passages, passages.title);
        const pairs = [[passages.vector, found.vector], ...passages.vectors.map((x, i) => [x, found.vectors[i]])];
        difference = Math.max(difference, ...pairs.map(([one, other]) => apart(one, other)));
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
