"""Search the parameters of a model over a table, and check its predictions."""

import lightgbm
import numpy as np
import optuna
import polars as pl
from sklearn.model_selection import train_test_split

optuna.logging.set_verbosity(optuna.logging.WARNING)
generator = np.random.default_rng(1)
table = pl.DataFrame({"x": generator.random(600), "y": generator.random(600)})
table = table.with_columns((3 * pl.col("x") + (pl.col("y") > 0.5)).alias("z"))
points, values = table.select("x", "y").to_numpy(), table["z"].to_numpy()
known, unknown, known_values, unknown_values = train_test_split(points, values, random_state=1)


def error(trial):
    leaves = trial.suggest_int("leaves", 4, 32)
    model = lightgbm.LGBMRegressor(num_leaves=leaves, n_jobs=1, verbose=-1).fit(known, known_values)
    return float(np.abs(model.predict(unknown) - unknown_values).mean())


study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
study.optimize(error, n_trials=5)
assert study.best_value < 0.1, study.best_value
print(f"found {study.best_params} with an error of {study.best_value:.3f}")
