# Compile C code and load it, as install.packages() does.
folder <- tempfile()
dir.create(folder)
setwd(folder)
writeLines("void add(int *n, int *x, int *sum) { for (int i = 0; i < *n; i++) *sum += x[i]; }", "add.c")
stopifnot(system2(file.path(R.home("bin"), "R"), c("CMD", "SHLIB", "add.c")) == 0)
dyn.load("add.so")
cat("sum", .C("add", 3L, 1:3, sum = 0L)$sum, "\n")
