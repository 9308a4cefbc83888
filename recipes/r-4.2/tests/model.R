# Fit a linear and a mixed model, and compare with the known coefficients.
library(data.table)
library(dplyr, warn.conflicts = FALSE)
library(nlme)

set.seed(1)
table <- data.table(group = factor(rep(1:10, each = 20)), x = runif(200))
table[, y := 2 * x + as.integer(group) + rnorm(200, sd = 0.01)]
means <- as_tibble(table) |> group_by(group) |> summarise(y = mean(y))
stopifnot(nrow(means) == 10)
fixed <- lm(y ~ x + group, data = table)
mixed <- lme(y ~ x, random = ~ 1 | group, data = table)
stopifnot(abs(coef(fixed)[["x"]] - 2) < 0.05, abs(fixef(mixed)[["x"]] - 2) < 0.05)
cat("fitted:", round(coef(fixed)[["x"]], 3), round(fixef(mixed)[["x"]], 3), "\n")
