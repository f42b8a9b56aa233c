"""The grammar behind the bundled data: requests in English and the spreadsheet formulas that answer them."""
