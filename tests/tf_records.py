"""DMLab's files as they are published: TFRecords by tensorboard's writer, tf.train.Example by protobuf itself."""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from official_files import jpeg
from tensorboard.summary.writer.record_writer import RecordWriter


def write_dmlab(root: Path, count: int) -> dict[str, bytes]:
    """Images by name; two files train, as they may be sharded."""
    kept = {}
    for split, files in (("train", 2), ("validation", 1), ("test", 1)):
        for number in range(files):
            with (root / f"dmlab-{split}.tfrecord-{number:05d}-of-{files:05d}").open("wb") as file:
                writer = RecordWriter(file)
                for n in range(count):
                    name = f"{split}-{number}-{n}.jpg"
                    kept[name] = jpeg()
                    writer.write(tf_example(image=kept[name], filename=name.encode(), label=n % 6))
    return kept


def tf_example(**features: bytes | int) -> bytes:
    """A tf.train.Example, encoded by protobuf itself."""
    message = _example_class()()
    for name, value in features.items():
        feature = message.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return message.SerializeToString()


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    kinds = {"BytesList": "TYPE_BYTES", "FloatList": "TYPE_FLOAT", "Int64List": "TYPE_INT64"}
    for name, kind in kinds.items():
        file.message_type.add(name=name).field.add(name="value", number=1, label="LABEL_REPEATED", type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, name) in enumerate(zip(("bytes_list", "float_list", "int64_list"), kinds, strict=True), 1):
        feature.field.add(name=field, number=number, label="LABEL_OPTIONAL", type="TYPE_MESSAGE",
                          type_name=f".tensorflow.{name}", oneof_index=0)  # fmt: skip
    features = file.message_type.add(name="Features")
    pair = features.nested_type.add(name="FeatureEntry")
    pair.options.map_entry = True
    pair.field.add(name="key", number=1, label="LABEL_OPTIONAL", type="TYPE_STRING")
    pair.field.add(name="value", number=2, label="LABEL_OPTIONAL", type="TYPE_MESSAGE", type_name=".tensorflow.Feature")
    features.field.add(name="feature", number=1, label="LABEL_REPEATED", type="TYPE_MESSAGE",
                       type_name=".tensorflow.Features.FeatureEntry")  # fmt: skip
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, label="LABEL_OPTIONAL", type="TYPE_MESSAGE",
                      type_name=".tensorflow.Features")  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
