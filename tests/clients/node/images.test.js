// OpenAI's Node SDK against the real server, whose address and key stand in EASEL_URL and EASEL_KEY.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { deflateSync, crc32 } from "node:zlib";
import OpenAI, { toFile } from "openai";

const baseURL = process.env.EASEL_URL;
const apiKey = process.env.EASEL_KEY;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const QUICK = { seed: 7, steps: 4, guidance_scale: 1 };

/** Width and height of a PNG in base64. */
function sizeOf(b64) {
  const file = Buffer.from(b64, "base64");
  assert.equal(file.toString("latin1", 1, 4), "PNG");
  return [file.readUInt32BE(16), file.readUInt32BE(20)];
}

/** A PNG of 64x64 RGBA pixels, each as `pixel(x, y)` says. */
function png(pixel) {
  const side = 64;
  const rows = [];
  for (let y = 0; y < side; y++) {
    rows.push(0);
    for (let x = 0; x < side; x++) rows.push(...pixel(x, y));
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side, 0);
  head.writeUInt32BE(side, 4);
  head.set([8, 6, 0, 0, 0], 8);
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  const data = chunk("IDAT", deflateSync(Buffer.from(rows)));
  return Buffer.concat([signature, chunk("IHDR", head), data, chunk("IEND", Buffer.alloc(0))]);
}

const picture = () => toFile(png((x, y) => [4 * x, 4 * y, 90, 255]), "picture.png", { type: "image/png" });
const mask = () => toFile(png((x) => [0, 0, 0, x < 32 ? 0 : 255]), "mask.png", { type: "image/png" });

async function metric(series) {
  const text = await (await fetch(new URL("/metrics", baseURL))).text();
  const line = text.split("\n").find((line) => line.startsWith(`${series} `));
  return line ? Number(line.split(" ")[1]) : 0;
}

test("draws", async () => {
  const answer = await client.images.generate({
    model: "gpt-image-1", prompt: "a red heart", size: "1024x1024", response_format: "b64_json", ...QUICK,
  });
  assert.deepEqual(sizeOf(answer.data[0].b64_json), [1024, 1024]);
  assert.equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens);
});

test("edits with a mask", async () => {
  const answer = await client.images.edit({
    image: await picture(), mask: await mask(), prompt: "a blue cat", response_format: "b64_json", ...QUICK,
  });
  assert.deepEqual(sizeOf(answer.data[0].b64_json), [64, 64]);
});

test("varies", async () => {
  const answer = await client.images.createVariation({ image: await picture(), response_format: "b64_json" });
  assert.deepEqual(sizeOf(answer.data[0].b64_json), [64, 64]);
});

test("streams two previews and the picture", async () => {
  const stream = await client.images.generate({
    prompt: "a red heart", size: "256x256", stream: true, partial_images: 2, ...QUICK, steps: 8,
  });
  const events = [];
  for await (const event of stream) events.push(event);
  const partial = "image_generation.partial_image";
  assert.deepEqual(events.map((event) => event.type), [partial, partial, "image_generation.completed"]);
  assert.deepEqual(events.slice(0, 2).map((event) => event.partial_image_index), [0, 1]);
  for (const event of events) assert.deepEqual(sizeOf(event.b64_json), [256, 256]);
});

test("reads an answer back from its url", async () => {
  const answer = await client.images.generate({ prompt: "a red heart", size: "256x256", ...QUICK });
  const file = await fetch(answer.data[0].url);
  assert.equal(file.headers.get("content-type"), "image/png");
  assert.deepEqual(sizeOf(Buffer.from(await file.arrayBuffer()).toString("base64")), [256, 256]);
});

test("refusals have the classes that OpenAI's have", async () => {
  await assert.rejects(client.images.generate({ prompt: "a red heart", n: 11 }), OpenAI.BadRequestError);
  await assert.rejects(client.images.generate({ prompt: "a red heart", model: "none" }), OpenAI.NotFoundError);
  const stranger = new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.images.generate({ prompt: "a red heart" }), OpenAI.AuthenticationError);
});

test("a full queue is a rate limit error", async () => {
  // The server of these tests holds two pictures.
  const slow = [1, 2].map(() => client.images.generate({ prompt: "a red heart", steps: 40 }));
  while ((await metric("easel_running_jobs")) + (await metric("easel_queue_depth")) < 2);
  await assert.rejects(client.images.generate({ prompt: "a red heart" }), OpenAI.RateLimitError);
  await Promise.all(slow);
});

test("a retry with an idempotency key does not draw twice", async () => {
  const hasty = new OpenAI({ baseURL, apiKey, maxRetries: 8, timeout: 700 });
  const before = await metric("easel_images_total");
  const answer = await hasty.images.generate(
    { prompt: "a red heart", response_format: "b64_json", ...QUICK, steps: 30 },
    { headers: { "Idempotency-Key": randomUUID() } },
  );
  assert.deepEqual(sizeOf(answer.data[0].b64_json), [256, 256]);
  assert.equal(await metric("easel_images_total"), before + 1);
});
