import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.listener.AbstractFuzzyWatchEventWatcher;
import com.alibaba.nacos.api.naming.listener.FuzzyWatchChangeEvent;
import java.util.function.Consumer;

/** Fuzzy watches of services; nacos-client has them since 3.0. */
public final class NamingFuzzy {
    public static void watch(NamingService client, String servicePattern, String groupPattern, Consumer<String[]> told)
            throws Exception {
        client.fuzzyWatch(servicePattern, groupPattern, new AbstractFuzzyWatchEventWatcher() {
            @Override
            public void onEvent(FuzzyWatchChangeEvent event) {
                told.accept(new String[] {
                    event.getServiceName(), event.getGroupName(), event.getNamespace(), event.getChangeType(),
                    event.getSyncType()
                });
            }
        });
    }
}
