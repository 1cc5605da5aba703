import com.alibaba.nacos.api.config.ConfigService;
import com.alibaba.nacos.api.config.listener.AbstractFuzzyWatchEventWatcher;
import com.alibaba.nacos.api.config.listener.ConfigFuzzyWatchChangeEvent;
import java.util.function.Consumer;

/** Fuzzy watches; nacos-client has them since 3.0. */
public final class Fuzzy {
    public static void watch(ConfigService client, String dataIdPattern, String groupPattern, Consumer<String[]> told)
            throws Exception {
        client.fuzzyWatch(dataIdPattern, groupPattern, new AbstractFuzzyWatchEventWatcher() {
            @Override
            public void onEvent(ConfigFuzzyWatchChangeEvent event) {
                told.accept(new String[] {
                    event.getDataId(), event.getGroup(), event.getNamespace(), event.getChangedType(),
                    event.getSyncType()
                });
            }
        });
    }
}
