# Plot a table as a PNG, without a display.
library(ggplot2)

path <- tempfile(fileext = ".png")
plot <- ggplot(mtcars, aes(wt, mpg)) + geom_point() + labs(title = "µ and more")
ggsave(path, plot, width = 4, height = 3, dpi = 72, type = "cairo")
stopifnot(readBin(path, "raw", 4) == as.raw(c(0x89, 0x50, 0x4e, 0x47)))
cat(file.size(path), "bytes of PNG\n")
