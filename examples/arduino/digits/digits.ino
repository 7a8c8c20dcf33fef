// Handwritten digits on a board with 20 kB of RAM to spare, such as a Nano 33 BLE or a Pico.
//
// rankwise_model.h is the network mnist-small in whole numbers, written by
//
//     rankwise export DIR --format c --precision int4 --out rankwise_model.h
//
// Send an image over the serial port, 784 bytes, row by row, white on black; the board answers
// with the digit, its probability and the microseconds that it took.

#include "rankwise_model.h"

static uint8_t image[rankwise_model_PIXELS];
static float probabilities[rankwise_model_CLASSES];

void setup() {
  Serial.begin(115200);
}

void loop() {
  if (Serial.readBytes(reinterpret_cast<char *>(image), sizeof image) != sizeof image) return;
  const unsigned long begin = micros();
  const int position = rankwise_model_predict(image, probabilities);
  const unsigned long end = micros();
  Serial.print(rankwise_model_label(position));
  Serial.print(' ');
  Serial.print(probabilities[position]);
  Serial.print(' ');
  Serial.println(end - begin);
}
