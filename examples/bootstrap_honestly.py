"""Bootstrap on the test images with guessed labels, and keep its numbers apart.

After the pass the network agrees with the guesses it was trained on. That says little about the
true labels, and neither number is an accuracy on images that were never seen.
"""

from __future__ import annotations

from rankwise import QuadraticClassifier, Subnetworks, UnitForm, load_images


def main() -> None:
    """Use the paper's symmetric units on few images, so that the guesses are far from perfect."""
    train = load_images("digits", split="train", limit=300)
    test = load_images("digits", split="test")
    model = QuadraticClassifier(
        unit=UnitForm("symmetric", window=False),
        subnets=Subnetworks(jacobian="kaufman"),
        n_units=100,
        max_iter=15,
    )
    model.fit(train, train.labels)
    inductive = model.score(test, test.labels)

    result = model.bootstrap_transductive(test, test.labels)  # labels go into the report alone
    report = result.report

    print(f"inductive accuracy      {inductive:.4f}   test images never seen")
    print(f"agreement with guesses  {report.agreement_with_guesses:.4f}   not an accuracy")
    print(f"transductive accuracy   {report.transductive_accuracy:.4f}   test images trained on")
    print(f"accuracy of the guesses {report.guess_accuracy:.4f}")
    print(f"ambiguous, so random    {report.ambiguous_fraction:.4f}")


if __name__ == "__main__":
    main()
