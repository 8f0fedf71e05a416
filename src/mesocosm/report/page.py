def write_page(folder): return folder/"report.html"
