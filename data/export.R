# Writes the CSV files of this folder from the data sets that R and its nlme package carry.
#
#     Rscript data/export.R             # from the root of the repository, into data/
#     Rscript data/export.R elsewhere   # into another folder
#
# Layout: ID,TIME,EVID,AMT,RATE,[II,SS,]DV,MDV, then covariates. EVID 0 is an observation,
# 1 a dose, 2 a change of covariates only. "." stands where a column does not apply: the dose
# columns of a row that gives no dose, the DV of a row that is no observation. At one and the
# same time an observation stands before a dose. What was decided per data set, and what is
# wrong with the data, is in the TOML file beside each CSV.

library(nlme)

arguments <- commandArgs(trailingOnly = TRUE)
folder <- if (length(arguments) > 0) arguments[1] else "data"
dir.create(folder, showWarnings = FALSE, recursive = TRUE)

# Rows of one kind; the columns not given are NA, i.e. ".".
rows <- function(id, time, evid, amt = NA, rate = NA, ii = NA, ss = NA, dv = NA, covariates = NULL) {
  table <- data.frame(
    ID = as.integer(as.character(id)), TIME = time, EVID = evid, AMT = amt, RATE = rate,
    II = ii, SS = ss, DV = dv, MDV = as.integer(evid != 0)
  )
  if (is.null(covariates)) table else cbind(table, covariates)
}

# A number as stored, at most 15 digits, never in scientific notation.
number <- function(x) {
  if (is.na(x)) "." else format(x, digits = 15, scientific = FALSE, trim = TRUE, decimal.mark = ".")
}

write_records <- function(name, ..., steady_state = FALSE) {
  table <- rbind(...)
  table <- table[order(table$ID, table$TIME, table$EVID), ]
  if (!steady_state) table <- table[setdiff(names(table), c("II", "SS"))]
  covariates <- table[-seq_len(match("MDV", names(table)))]
  stopifnot(
    !anyNA(table[c("ID", "TIME", "EVID")]), !anyNA(covariates),
    !anyNA(table$DV[table$EVID == 0]), !anyNA(table$AMT[table$EVID == 1])
  )
  cells <- lapply(table, function(column) vapply(column, number, ""))
  lines <- c(paste(names(table), collapse = ","), do.call(paste, c(cells, sep = ",")))
  out <- file(file.path(folder, paste0(name, ".csv")), "wb") # binary: LF on every system
  writeLines(lines, out, sep = "\n")
  close(out)
  cat(sprintf(
    "%-14s %5d rows, %3d subjects, %4d doses, %4d observations\n", name, nrow(table),
    length(unique(table$ID)), sum(table$EVID == 1), sum(table$EVID == 0)
  ))
}

# The codes of a factor, from 0, in the order of its levels.
code <- function(levels) as.integer(levels) - 1L

# ---- theophylline: one oral dose. Dose is mg/kg, so mg is Dose * Wt, exact to three decimals.
theoph <- as.data.frame(datasets::Theoph)
given <- theoph[!duplicated(theoph$Subject), ]
write_records(
  "theophylline",
  rows(given$Subject, 0, 1L,
    amt = round(given$Dose * given$Wt, 3), rate = 0, covariates = data.frame(WT = given$Wt)
  ),
  rows(theoph$Subject, theoph$Time, 0L, dv = theoph$conc, covariates = data.frame(WT = theoph$Wt))
)

# ---- indomethacin: one intravenous bolus of 25 mg, from the publication: not in the R object.
indometh <- as.data.frame(datasets::Indometh)
write_records(
  "indomethacin",
  rows(unique(indometh$Subject), 0, 1L, amt = 25, rate = 0),
  rows(indometh$Subject, indometh$time, 0L, dv = indometh$conc)
)

# ---- phenobarbital: repeated intravenous boluses; each row is a dose (mg) or a level (mg/L).
pheno <- as.data.frame(nlme::Phenobarb)
stopifnot(is.na(pheno$dose) != is.na(pheno$conc))
infant <- data.frame(WT = pheno$Wt, APGR = as.integer(as.character(pheno$Apgar)))
dose <- !is.na(pheno$dose)
write_records(
  "phenobarbital",
  rows(pheno$Subject[dose], pheno$time[dose], 1L,
    amt = pheno$dose[dose], rate = 0, covariates = infant[dose, ]
  ),
  rows(pheno$Subject[!dose], pheno$time[!dose], 0L, dv = pheno$conc[!dose], covariates = infant[!dose, ])
)

# ---- quinidine: oral doses. A dose with an `interval` starts afresh at steady state of that dose
# every `interval` hours (SS 1, II the interval), as nlme::quinModel computes it. A row with
# neither dose nor level only carries covariates (EVID 2).
quin <- as.data.frame(nlme::Quinidine)
patient <- data.frame(
  AGE = quin$Age, HT = quin$Height, WT = quin$Weight, RACE = code(quin$Race), SMOK = code(quin$Smoke),
  ETOH = code(quin$Ethanol), HF = code(quin$Heart), CRCL = code(quin$Creatinine), AAG = quin$glyco
)
dose <- !is.na(quin$dose)
level <- !is.na(quin$conc)
steady <- !is.na(quin$interval)
stopifnot(!(dose & level), dose[steady])
other <- !dose & !level
write_records(
  "quinidine",
  rows(quin$Subject[dose], quin$time[dose], 1L,
    amt = quin$dose[dose], rate = 0, ii = ifelse(steady, quin$interval, 0)[dose],
    ss = as.integer(steady[dose]), covariates = patient[dose, ]
  ),
  rows(quin$Subject[level], quin$time[level], 0L, dv = quin$conc[level], covariates = patient[level, ]),
  rows(quin$Subject[other], quin$time[other], 2L, covariates = patient[other, ]),
  steady_state = TRUE
)

# ---- remifentanil: each row of the R object gives Rate, and Amt = Rate * time, from its own time
# to the next row's. Neighbouring rows of one rate make one infusion; a rate of 0 makes none.
remi <- as.data.frame(nlme::Remifentanil)
volunteer <- data.frame(
  AGE = remi$Age, SEX = code(remi$Sex), HT = remi$Ht, WT = remi$Wt, BSA = remi$BSA, LBM = remi$LBM
)
new_segment <- c(TRUE, diff(remi$ID) != 0 | diff(remi$Rate) != 0)
segment <- cumsum(new_segment)
total <- round(as.vector(tapply(remi$Amt, segment, sum)), 6)
infusion <- new_segment & remi$Rate > 0
amount <- total[segment[infusion]]
stopping <- which(new_segment & remi$Rate == 0) # every infusion is followed by a row of rate 0
stopifnot(
  remi$ID[stopping] == remi$ID[infusion],
  abs(amount / remi$Rate[infusion] - (remi$Time[stopping] - remi$Time[infusion])) < 1e-9
)
level <- !is.na(remi$conc)
write_records(
  "remifentanil",
  rows(remi$ID[infusion], remi$Time[infusion], 1L,
    amt = amount, rate = remi$Rate[infusion], covariates = volunteer[infusion, ]
  ),
  rows(remi$ID[level], remi$Time[level], 0L, dv = remi$conc[level], covariates = volunteer[level, ])
)

# ---- cefamandole: 15 mg/kg over 10 min from TIME 0. Neither the dose nor the body weight is in the
# R object, so amounts are per kg.
cefa <- as.data.frame(nlme::Cefamandole)
write_records(
  "cefamandole",
  rows(unique(cefa$Subject), 0, 1L, amt = 15, rate = 1.5),
  rows(cefa$Subject, cefa$Time, 0L, dv = cefa$conc)
)
