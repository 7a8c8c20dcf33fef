"""Use the classifier like any other of scikit-learn's: flat rows, a pipeline, a grid search.

Rows of 64 pixels are taken for 8×8 images; `image_shape` says so where the images aren't square.
"""

from __future__ import annotations

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from rankwise import QuadraticClassifier, Subnetworks


def main() -> None:
    """Choose the form of the unit and the ridge of the output layer by cross-validation."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    model = QuadraticClassifier(n_units=100, subnets=Subnetworks(dtype="float32"))
    pipeline = make_pipeline(MinMaxScaler(), model)
    grid = {
        "quadraticclassifier__unit": ["symmetric", "bilinear"],
        "quadraticclassifier__ridge": ["gcv", 1e-3],
    }
    search = GridSearchCV(pipeline, grid, cv=3).fit(X_train, y_train)
    results = search.cv_results_
    for params, score in zip(results["params"], results["mean_test_score"], strict=True):
        print(f"{score:.4f}  {', '.join(str(v) for v in params.values())}")
    print(f"best on the test rows: {search.score(X_test, y_test):.4f}")


if __name__ == "__main__":
    main()
