"""Sums up orders.csv into report.txt, both in the working folder."""
import collections
import csv

sums = collections.Counter()
with open("orders.csv", newline="") as f:
    for row in csv.DictReader(f):
        sums[row["city"]] += int(row["amount"])
with open("report.txt", "w") as f:
    for city, amount in sums.most_common():
        print(f"{city:8}{amount:6}", file=f)
print(len(sums), "cities")
