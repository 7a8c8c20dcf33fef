"""Units slid over the image: the preset ``tiny`` with and without moved training images.

On images of the digits at 16×16 pixels, for few epochs; alone it would choose their number itself.
"""

from __future__ import annotations

from rankwise import ConvolutionalClassifier, load_images


def main() -> None:
    """Print accuracy and parameters for two augmentations."""
    train = load_images("digits", split="train", size=16)
    test = load_images("digits", split="test", size=16)
    print("augmentation  accuracy  parameters  output layer")
    for augmentation in ("none", "moves"):
        model = ConvolutionalClassifier("tiny", augmentation=augmentation, epochs=4)
        model.fit(train.images, train.labels)
        print(
            f"{augmentation:12}  {model.score(test.images, test.labels):8.4f}"
            f"  {model.n_parameters_total_:10,}  {model.output_layer_}"
        )


if __name__ == "__main__":
    main()
