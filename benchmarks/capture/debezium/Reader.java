import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.ObjectOutputStream;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

/** Debezium's engine from a binlog position on: counts the JSON it gives, and says when a third of it was left. */
public class Reader {
    static final String END = "end of the workload";
    static long expected, count, bytes;
    static String first, marks = "";
    static boolean warm;

    /** Arguments: properties of the engine, number of rows, binlog file, position, GTIDs before it. */
    public static void main(String[] args) throws Exception {
        expected = Long.parseLong(args[1]);
        Properties properties = new Properties();
        try (FileInputStream in = new FileInputStream(args[0])) {
            properties.load(in);
        }
        startAt(properties, args[2], args[3], args[4]);
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
            .using(properties)
            .using((ok, message, error) -> { if (!ok) fail(message, error); })
            .notifying(Reader::handle)
            .build();
        engine.run();
    }

    /** An offset as the engine would have stored it there. */
    static void startAt(Properties properties, String file, String pos, String gtids) throws Exception {
        String key = "[\"" + properties.get("name") + "\",{\"server\":\"" + properties.get("topic.prefix") + "\"}]";
        String value = "{\"file\":\"" + file + "\",\"pos\":" + pos + ",\"gtids\":\"" + gtids + "\"}";
        Map<byte[], byte[]> offsets = new HashMap<>();
        offsets.put(key.getBytes(StandardCharsets.UTF_8), value.getBytes(StandardCharsets.UTF_8));
        String place = properties.getProperty("offset.storage.file.filename");
        try (ObjectOutputStream out = new ObjectOutputStream(new FileOutputStream(place))) {
            out.writeObject(offsets);
        }
    }

    static void handle(List<ChangeEvent<String, String>> batch,
            DebeziumEngine.RecordCommitter<ChangeEvent<String, String>> committer) throws InterruptedException {
        if (count == 0) {
            mark();
        }
        for (ChangeEvent<String, String> event : batch) {
            String value = event.value();
            if (first == null) {
                first = value;
            }
            bytes += value.length() + event.key().length();
            if (++count == expected) {
                mark();
            }
            else if (count > expected) {
                finish(value.contains(END));
            }
            committer.markProcessed(event);
        }
        if (!warm && count * 3 >= expected * 2) {
            warm = true;
            mark();
        }
        committer.markBatchFinished();
    }

    /** Rows so far, seconds, CPU seconds of this process. */
    static void mark() {
        var os = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        double cpu = os.getProcessCpuTime() / 1e9;
        marks += (marks.isEmpty() ? "" : ",") + "[" + count + "," + System.nanoTime() / 1e9 + "," + cpu + "]";
    }

    static void finish(boolean whole) {
        System.err.println(first);
        System.out.println("{\"marks\":[" + marks + "],\"whole\":" + whole + ",\"bytes\":" + bytes + "}");
        System.out.flush();
        Runtime.getRuntime().halt(whole ? 0 : 1);
    }

    static void fail(String message, Throwable error) {
        System.err.println(message);
        if (error != null) {
            error.printStackTrace();
        }
        Runtime.getRuntime().halt(2);
    }
}
