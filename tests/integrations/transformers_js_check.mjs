// /// script
// dependencies = ["@huggingface/transformers@4.3.2"]
// ///
// LAM in transformers.js, offline: the ONNX graph of the model folder.

import { readFile } from "node:fs/promises";
import { env, pipeline } from "@huggingface/transformers";

env.allowRemoteModels = false;
env.localModelPath = "."; // the folder that holds my-lam
const extract = await pipeline("feature-extraction", "my-lam", { dtype: "fp32" });

const differences = [];
for (const { text, vector } of JSON.parse(await readFile("expected.json", "utf8"))) {
  const found = (await extract(text, { pooling: "mean", normalize: true })).tolist()[0];
  differences.push(Math.max(...found.map((x, i) => Math.abs(x - vector[i]))));
}
const way = 'pipeline("feature-extraction", "my-lam", { dtype: "fp32" })';
const long = differences.pop();
const short = Math.max(...differences);
console.log(JSON.stringify({ way, short, long }));
if (!(Math.max(short, long) <= 1e-5)) process.exitCode = 1; // a NaN is not
