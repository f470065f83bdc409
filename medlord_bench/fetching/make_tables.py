"""Makes `tables/*.csv` from the index of the Imaging Data Commons.

    pip install idc-index-data==25.0.5 pyarrow pandas
    python -m medlord_bench.fetching.make_tables SERIESUIDS.csv

SERIESUIDS.csv: the ids of LUNA16's 888 series, one a line. They were taken from the last column of the list that
github.com/wentaozhu/DeepLung publishes, nodcls/data/LIDC-IDRI-mappingLUNA16 (commit fe40fc7); the patients are IDC's.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent / "tables"
COLLECTIONS = ("lidc_idri", "rider_lung_ct")


def main(list_of_luna16: Path) -> None:
    import idc_index_data
    import pandas as pd

    version = importlib.metadata.version("idc-index-data")
    index = pd.read_parquet(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
    luna16 = {line.strip() for line in list_of_luna16.read_text().splitlines() if line.strip()[:1].isdigit()}
    for name in COLLECTIONS:
        rows = index[(index.collection_id == name) & (index.Modality == "CT")]
        if set(rows.aws_bucket) != {"idc-open-data"}:
            raise SystemExit(f"{name}: expected all series in the bucket idc-open-data, found {set(rows.aws_bucket)}")
        table = pd.DataFrame(
            {
                "patient": rows.PatientID,
                "series": rows.SeriesInstanceUID,
                "folder": rows.crdc_series_uuid,
                "licence": rows.license_short_name,
            }
        )
        comments = [
            f"# CT series of the collection {name} at the Imaging Data Commons: patient (PatientID), series "
            "(SeriesInstanceUID), folder in the bucket idc-open-data.",
            f"# Made by make_tables.py from idc-index-data {version} (MIT).",
        ]
        if name == "lidc_idri":
            lost = luna16 - set(table.series)
            if len(luna16) != 888 or lost:
                raise SystemExit(
                    f"{list_of_luna16}: expected LUNA16's 888 series, {len(luna16)} given, {len(lost)} not in {name}"
                )
            table["luna16"] = table.series.isin(luna16).astype(int)
            comments.append(
                "# luna16: 1 if the series is in LUNA16, by the list in github.com/wentaozhu/DeepLung (fe40fc7)."
            )
        table = table.sort_values(["patient", "series"])
        text = "\n".join(comments) + "\n" + table.to_csv(index=False, lineterminator="\n")
        (HERE / f"{name}.csv").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
