"""Quantize a model, and write a page that shows what became of it: is it good enough to keep?

python examples/quantize_and_report.py IN.gguf OUT.gguf Q4_K_M REPORT.html
"""

import sys

import kquant


def main(source: str, target: str, file_type: str, page: str) -> None:
    kquant.requantize(source, target, file_type)
    report = kquant.report(target, against=source, rows=16)
    report.write(page)

    # what the page shows is also available as objects
    facts = report.facts
    assert facts.source  # there is one, because `against` named it
    print(f"{facts.source.bits_per_weight:.2f} -> {facts.file.bits_per_weight:.2f} bits per weight")
    for row in sorted(facts.errors, key=lambda row: -row.sums.relative_rmse)[:3]:
        print(f"{row.name:24}  {row.type_b.name}  {100 * row.sums.relative_rmse:.2f} %")

    assert facts.sweep
    fewest = min((mixture for mixture in facts.sweep.mixtures if mixture.sums), key=lambda m: m.new_bytes)
    assert fewest.sums
    print(f"The smallest would be {fewest.file_type.name}, at {100 * fewest.sums.relative_rmse:.1f} %.")


if __name__ == "__main__":
    main(*sys.argv[1:])
