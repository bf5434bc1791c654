"""`spark.read.parquet` of the Parquet files (`make spark`; needs a Java runtime)."""

import os
import shutil
import sys

import pytest
from engine_rows import in_order

pytestmark = [pytest.mark.spark, pytest.mark.slow]
pyspark = pytest.importorskip("pyspark", reason="needs pyspark (make spark)")
TYPES = {"bigint", "int", "smallint", "boolean", "string", "timestamp"}


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """One core, nothing on the network, no console."""
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs a Java runtime (Debian: apt install openjdk-17-jre-headless)")
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[1]").appName("synfin")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def test_spark_reads_the_folder(table, expected, folder, spark):
    from pyspark.sql.functions import col, unix_micros

    frame = spark.read.parquet(str(folder))
    kinds = dict(frame.dtypes)
    assert list(kinds) == list(expected[0])
    assert set(kinds.values()) <= TYPES
    # Rows as Python objects would show instants in the zone of this process.
    numbers = [unix_micros(col(name)).alias(name) if kinds[name] == "timestamp" else col(name) for name in kinds]
    assert in_order([row.asDict() for row in frame.select(numbers).collect()], table) == expected
