"""What a report cites, as BibTeX: every method that its page or its paragraph of methods names."""

REFERENCES = r"""@article{nadeau2003inference,
  author = {Nadeau, Claude and Bengio, Yoshua},
  title = {Inference for the Generalization Error},
  journal = {Machine Learning}, volume = {52}, pages = {239--281}, year = {2003}
}
@article{corani2015bayesian,
  author = {Corani, Giorgio and Benavoli, Alessio},
  title = {A {B}ayesian Approach for Comparing Cross-Validated Algorithms on Multiple Data Sets},
  journal = {Machine Learning}, volume = {100}, pages = {285--304}, year = {2015}
}
@article{benavoli2017time,
  author = {Benavoli, Alessio and Corani, Giorgio and Dem{\v{s}}ar, Janez and Zaffalon, Marco},
  title = {Time for a Change: a Tutorial for Comparing Multiple Classifiers Through {B}ayesian
           Analysis},
  journal = {Journal of Machine Learning Research}, volume = {18}, pages = {1--36}, year = {2017}
}
@article{holm1979simple,
  author = {Holm, Sture},
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics}, volume = {6}, pages = {65--70}, year = {1979}
}
@article{mcnemar1947note,
  author = {McNemar, Quinn},
  title = {Note on the Sampling Error of the Difference Between Correlated Proportions or
           Percentages},
  journal = {Psychometrika}, volume = {12}, pages = {153--157}, year = {1947}
}
@article{durkalski2003analysis,
  author = {Durkalski, Valerie L. and Palesch, Yuko Y. and Lipsitz, Stuart R. and Rust, Philip F.},
  title = {Analysis of Clustered Matched-Pair Data},
  journal = {Statistics in Medicine}, volume = {22}, pages = {2417--2428}, year = {2003}
}
@inproceedings{hendrycks2019benchmarking,
  author = {Hendrycks, Dan and Dietterich, Thomas},
  title = {Benchmarking Neural Network Robustness to Common Corruptions and Perturbations},
  booktitle = {International Conference on Learning Representations}, year = {2019}
}
@article{paule1982consensus,
  author = {Paule, Robert C. and Mandel, John},
  title = {Consensus Values and Weighting Factors},
  journal = {Journal of Research of the National Bureau of Standards}, volume = {87},
  pages = {377--385}, year = {1982}
}
@article{hartung2001tests,
  author = {Hartung, Joachim and Knapp, Guido},
  title = {On Tests of the Overall Treatment Effect in Meta-Analysis with Normally Distributed
           Responses},
  journal = {Statistics in Medicine}, volume = {20}, pages = {1771--1782}, year = {2001}
}
@article{friedman1937use,
  author = {Friedman, Milton},
  title = {The Use of Ranks to Avoid the Assumption of Normality Implicit in the Analysis of
           Variance},
  journal = {Journal of the American Statistical Association}, volume = {32},
  pages = {675--701}, year = {1937}
}
@phdthesis{nemenyi1963distribution,
  author = {Nemenyi, Peter Bjorn},
  title = {Distribution-free Multiple Comparisons},
  school = {Princeton University}, year = {1963}
}
@article{demsar2006statistical,
  author = {Dem{\v{s}}ar, Janez},
  title = {Statistical Comparisons of Classifiers over Multiple Data Sets},
  journal = {Journal of Machine Learning Research}, volume = {7}, pages = {1--30}, year = {2006}
}
"""
