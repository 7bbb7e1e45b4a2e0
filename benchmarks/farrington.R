# Farrington, Noufaily: mean and dispersion of every judged week, by surveillance::farringtonFlexible.
# Rscript farrington.R IN.csv OUT.csv FIRST: a line a week, a column a series, empty where unknown.
suppressMessages(library(surveillance))
given <- commandArgs(trailingOnly = TRUE)
counts <- as.matrix(read.csv(given[1], header = FALSE))
first <- as.integer(given[3]) + 1
weeks <- nrow(counts)
found <- NULL
for (i in seq_len(ncol(counts))) {
  y <- counts[, i]
  begin <- which(!is.na(y))[1]
  mean <- rep(NA, weeks)
  phi <- rep(NA, weeks)
  # two years back, with windows of three weeks, past outbreaks weighted down; a shorter history uses one year
  years <- if (!is.na(begin) && first - begin >= 104 + 3) 2 else 1
  series <- sts(observed = y, frequency = 52, start = c(2023, 1))
  control <- list(
    range = first:weeks, b = years, w = 3, reweight = TRUE, weightsThreshold = 2.58, noPeriods = 10,
    pastWeeksNotIncluded = 4, thresholdMethod = "nbPlugin", limit54 = c(0, 4), trend = TRUE
  )
  made <- tryCatch(suppressWarnings(farringtonFlexible(series, control)), error = function(e) { message(conditionMessage(e)); NULL })
  if (!is.null(made)) {
    mean[first:weeks] <- made@control$mu0Vector
    phi[first:weeks] <- made@control$phiVector
  }
  found <- cbind(found, mean, phi)
}
write.table(found, given[2], sep = ",", row.names = FALSE, col.names = FALSE, na = "")
